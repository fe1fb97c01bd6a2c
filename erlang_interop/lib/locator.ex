defmodule BeethovenPeer.Locator do
  @moduledoc "Seeks a beacon in the cluster's network, three rounds at most, and joins through it."

  use GenServer

  alias BeethovenPeer.SeekChat

  @rounds 3
  @connect_timeout 250

  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: Beethoven.Locator)

  @impl true
  def init(options), do: {:ok, options, {:continue, :seek}}

  @impl true
  def handle_continue(:seek, options) do
    {:ok, _pid} = options |> seek(@rounds) |> BeethovenPeer.start_substrate(options)
    {:noreply, options}
  end

  defp seek(_options, 0), do: :standalone

  defp seek(options, rounds) do
    port = Keyword.fetch!(options, :listener_port)

    case Enum.find_value(hosts(options), &connect(&1, port)) do
      nil ->
        options |> Keyword.get(:random_backoff, 150..300) |> Enum.random() |> Process.sleep()
        seek(options, rounds - 1)

      socket ->
        join(socket)
    end
  end

  defp hosts(options) do
    {a, b, c, d} = Keyword.get(options, :cluster_net, {127, 0, 0, 0})
    <<network::32>> = <<a, b, c, d>>
    last = Integer.pow(2, 32 - Keyword.get(options, :cluster_net_mask, 29)) - 2
    for host <- 1..last//1, do: address(network + host)
  end

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
