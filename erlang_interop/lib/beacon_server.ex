defmodule BeethovenPeer.BeaconServer do
  @moduledoc """
  Answers those who seek the cluster: one message, one reply, closed.

  When its port is taken, by the beacon of another node on this machine, it stays idle and tries again
  at each `:recover` cast. A message it cannot read is closed on without a reply.
  """

  use GenServer

  alias BeethovenPeer.CoreServer
  alias BeethovenPeer.SeekChat

  def start_link(options) do
    GenServer.start_link(__MODULE__, options, name: Beethoven.BeaconServer)
  end

  @doc "Lets a beacon whose port was taken try again."
  def recover, do: GenServer.cast(Beethoven.BeaconServer, :recover)

  @impl true
  def init(options), do: {:ok, {listen(options), options}}

  @impl true
  def handle_cast(:recover, {{:error, _reason}, options}),
    do: {:noreply, {listen(options), options}}

  def handle_cast(:recover, state), do: {:noreply, state}

  defp listen(options) do
    port = Keyword.fetch!(options, :listener_port)
    address = Keyword.get(options, :address, {127, 0, 0, 1})

    case :gen_tcp.listen(port, [:binary, active: false, reuseaddr: true, ip: address]) do
      {:ok, socket} ->
        spawn(fn -> accept(socket) end)
        {:ok, socket}

      {:error, reason} ->
        :logger.warning("beacon: cannot listen on port ~p: ~p", [port, reason])
        {:error, reason}
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
    :ok = CoreServer.add_node(sender)
    :joined
  end
end
