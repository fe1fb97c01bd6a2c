defmodule Beethoven.Locator do
  @moduledoc "Seeks a beacon in the cluster's network, three rounds at most, and joins through it."

  use GenServer

  alias Beethoven.SeekChat

  @rounds 3
  @connect_timeout 250

  def start_link(_arg), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init(_arg), do: {:ok, nil, {:continue, :seek}}

  @impl true
  def handle_continue(:seek, state) do
    mode = seek(@rounds)
    {:ok, _pid} = Supervisor.start_child(Beethoven.RootSupervisor, {Beethoven.Substrate, mode})
    {:noreply, state}
  end

  defp seek(0), do: :standalone

  defp seek(rounds) do
    case Enum.find_value(hosts(), &connect(&1, setting(:listener_port))) do
      nil ->
        :common_random_backoff |> setting() |> Enum.random() |> Process.sleep()
        seek(rounds - 1)

      socket ->
        join(socket)
    end
  end

  defp hosts do
    {:ok, {a, b, c, d}} = :cluster_net |> setting() |> to_charlist() |> :inet.parse_ipv4_address()
    <<network::32>> = <<a, b, c, d>>
    last = Integer.pow(2, 32 - String.to_integer(setting(:cluster_net_mask))) - 2
    for host <- 1..last//1, do: address(network + host)
  end

  defp setting(key), do: Application.fetch_env!(:beethoven, key)

  defp address(number) do
    <<a, b, c, d>> = <<number::32>>
    {a, b, c, d}
  end

  defp connect(host, port) do
    case :gen_tcp.connect(host, port, [:binary, active: false], @connect_timeout) do
      {:ok, socket} -> socket
      {:error, _reason} -> nil
    end
  end

  defp join(socket) do
    :ok = :gen_tcp.send(socket, SeekChat.encode(node(), :seeking, :join))
    {:ok, bytes} = :gen_tcp.recv(socket, 0)
    :ok = :gen_tcp.close(socket)

    case SeekChat.decode(bytes) do
      {:ok, %{type: "reply", payload: "joined"}} -> :clustered
      answer -> raise "the beacon did not let #{node()} in: #{inspect(answer)}"
    end
  end
end
