defmodule BenchPeer do
  @moduledoc """
  A BEAM's part in the benchmarks: the server `:echo`, as Python has one, and what calls it.

  Times are in nanoseconds.
  """

  use GenServer

  def start do
    {:ok, _pid} = GenServer.start(__MODULE__, [], name: :echo)
    :ok
  end

  @doc "How long each of so many calls of `node` takes."
  def calls(node, number, request) do
    for _ <- 1..number, do: time(fn -> call(node, request) end)
  end

  @doc "How long so many casts take to be sent to `node` and handled there."
  def burst(node, number, message) do
    time(fn ->
      for _ <- 1..number, do: GenServer.cast({:echo, node}, message)
      call(node, :done)
    end)
  end

  @doc "How long so many messages to each of so many processes on `node` take to be received."
  def many(node, processes, messages) do
    pids = call(node, {:receivers, processes, messages})

    time(fn ->
      for n <- 1..messages, pid <- pids, do: send(pid, {self(), n})
      for _ <- pids, do: receive(do: (:done -> :ok))
    end)
  end

  @doc "When each of so many commits that turn `node` offline, online, and so on, begins."
  def commits(node, number) do
    for n <- 1..number do
      Process.sleep(3)
      commit(node, if(rem(n, 2) == 1, do: :offline, else: :online))
    end
  end

  @doc "Writes the row of `node` and tells when the commit begins."
  def commit(node, status) do
    {:atomic, began} =
      :mnesia.transaction(fn ->
        :mnesia.write({CoreTracker, node, status, DateTime.utc_now()})
        :os.system_time(:nanosecond)
      end)

    began
  end

  @doc "Has the CoreServer of `node` alert this server."
  def follow(node) do
    GenServer.cast({Beethoven.CoreServer, node}, {:alert_me, {:echo, node()}})
    GenServer.call({Beethoven.CoreServer, node}, :get_mode)
  end

  @doc "The bytes that are allocated."
  def allocated do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    :erlang.memory(:total)
  end

  @doc "The bytes that each of so many processes takes."
  def per_process(number) do
    before = :erlang.memory(:total)
    pids = for _ <- 1..number, do: spawn(fn -> receive(do: (:stop -> :ok)) end)
    allocated = :erlang.memory(:total) - before
    for pid <- pids, do: send(pid, :stop)
    allocated / number
  end

  @impl true
  def init(heard), do: {:ok, heard}

  @impl true
  def handle_call(:heard, _from, heard), do: {:reply, Enum.reverse(heard), heard}
  def handle_call(data, _from, heard) when is_binary(data), do: {:reply, :ok, heard}

  def handle_call({:receivers, processes, messages}, _from, heard) do
    {:reply, for(_ <- 1..processes, do: spawn(fn -> take(messages) end)), heard}
  end

  def handle_call(request, _from, heard), do: {:reply, request, heard}

  @impl true
  def handle_cast({:node_update, _}, heard), do: {:noreply, [:os.system_time(:nanosecond) | heard]}
  def handle_cast(_message, heard), do: {:noreply, heard}

  defp take(messages) do
    receive do
      {sender, _} when messages == 1 -> send(sender, :done)
      {_, _} -> take(messages - 1)
    end
  end

  defp call(node, request), do: GenServer.call({:echo, node}, request, :infinity)

  defp time(work) do
    start = :erlang.monotonic_time(:nanosecond)
    work.()
    :erlang.monotonic_time(:nanosecond) - start
  end
end
