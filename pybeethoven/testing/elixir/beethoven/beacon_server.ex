defmodule Beethoven.BeaconServer do
  @moduledoc """
  Answers those who seek the cluster: one message, one reply, closed.

  When its port is taken, by the beacon of another node on this machine, it stays idle and tries again
  at each `:recover` cast. A message it cannot read is closed on without a reply.
  """

  use GenServer

  alias Beethoven.CoreServer
  alias Beethoven.SeekChat

  def start_link(_arg), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Lets a beacon whose port was taken try again."
  def recover, do: GenServer.cast(__MODULE__, :recover)

  @impl true
  def init(_arg), do: {:ok, listen()}

  @impl true
  def handle_cast(:recover, {:error, _reason}), do: {:noreply, listen()}
  def handle_cast(:recover, listening), do: {:noreply, listening}

  defp listen do
    port = Application.fetch_env!(:beethoven, :listener_port)

    case :gen_tcp.listen(port, [:binary, active: false, reuseaddr: true, ip: address()]) do
      {:ok, socket} ->
        spawn(fn -> accept(socket) end)
        {:ok, socket}

      {:error, reason} ->
        :logger.warning("beacon: cannot listen on port ~p: ~p", [port, reason])
        {:error, reason}
    end
  end

  # Loopback only, so that no other machine is let in.
  defp address do
    [_name, host] = node() |> Atom.to_string() |> String.split("@")

    case host |> to_charlist() |> :inet.parse_ipv4_address() do
      {:ok, {127, _, _, _} = address} -> address
      _other -> {127, 0, 0, 1}
    end
  end

  # Each acceptor serves what it accepted: it owns the socket, which thus closes if serving fails.
  defp accept(listener) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      spawn(fn -> accept(listener) end)
      serve(socket)
    end
  end

  defp serve(socket) do
    with {:ok, bytes} <- :gen_tcp.recv(socket, 0),
         {:ok, %{sender: sender, type: type}} <- SeekChat.decode(bytes),
         {:ok, payload} <- reply(String.to_atom(sender), type) do
      :gen_tcp.send(socket, SeekChat.encode(node(), :reply, payload))
    end

    :gen_tcp.close(socket)
  end

  defp reply(sender, _type) when sender == node(), do: {:ok, :self}
  defp reply(sender, "seeking"), do: {:ok, sender |> Node.ping() |> admit(sender)}
  defp reply(_sender, "watching"), do: {:ok, Node.list()}
  defp reply(_sender, "reply"), do: {:ok, :error}
  defp reply(_sender, _type), do: :ignore

  defp admit(:pang, _sender), do: :join_failed

  defp admit(:pong, sender) do
    :ok = CoreServer.new_node(sender)
    :joined
  end
end
