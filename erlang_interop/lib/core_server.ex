defmodule BeethovenPeer.CoreServer do
  @moduledoc """
  Keeps the node's replica of `CoreTracker` and tells followers what changes in it.

  Registered as `Beethoven.CoreServer`. State: `{mode, followers}`.
  """

  use GenServer

  alias BeethovenPeer.BeaconServer

  @table CoreTracker

  def start_link(mode), do: GenServer.start_link(__MODULE__, mode, name: Beethoven.CoreServer)

  @doc "Marks `node` online and lets Mnesia connect to it."
  def add_node(node), do: GenServer.call(Beethoven.CoreServer, {:add_node, node})

  @impl true
  def init(mode) do
    :ok = ensure_table()
    {:ok, _node} = :mnesia.subscribe({:table, @table, :detailed})
    :ok = write(node(), :online)
    for node <- tracked(), node != node(), do: Node.monitor(node, true)
    {:ok, {mode, []}}
  end

  @impl true
  def handle_call(:get_mode, _from, {mode, _followers} = state), do: {:reply, mode, state}

  def handle_call({:add_node, node}, _from, state) do
    :ok = write(node, :online)
    :mnesia.change_config(:extra_db_nodes, [node])
    {:reply, :ok, state}
  end

  @impl true
  def handle_cast({:alert_me, follower}, {mode, followers}) do
    {:noreply, {mode, Enum.dedup([follower | followers])}}
  end

  @impl true
  def handle_info({:nodedown, node}, state) do
    Process.sleep(Enum.random(2..20))
    :ok = take_offline(node)
    BeaconServer.recover()
    {:noreply, state}
  end

  def handle_info({:mnesia_table_event, event}, {mode, followers}) do
    {:noreply, event |> change() |> follow(mode, followers)}
  end

  defp follow(:none, mode, followers), do: {mode, followers}

  defp follow({node, status} = change, _mode, followers) do
    Node.monitor(node, status == :online)
    for follower <- followers, do: GenServer.cast(follower, {:node_update, change})
    {mode(status), followers}
  end

  defp mode(:online), do: :clustered
  defp mode(:offline), do: if(Node.list() == [], do: :standalone, else: :clustered)

  defp change({:write, @table, {@table, node, _, _}, _, _}) when node == node(), do: :none
  defp change({:write, @table, {@table, node, :online, _}, [], _}), do: {node, :online}

  defp change({:write, @table, {@table, node, new, _}, [{@table, node, old, _}], _})
       when new != old,
       do: {node, new}

  defp change(_event), do: :none

  defp ensure_table do
    if @table in :mnesia.system_info(:tables), do: copy_table(), else: create_table()
  end

  defp create_table do
    {:atomic, :ok} =
      :mnesia.create_table(@table,
        type: :ordered_set,
        attributes: [:node, :status, :last_change],
        ram_copies: [node() | Node.list()]
      )

    :ok
  end

  # Mnesia gives a node that was here before its copy back by itself, which takes a moment.
  defp copy_table do
    case :mnesia.add_table_copy(@table, node(), :ram_copies) do
      {:atomic, :ok} -> :ok
      {:aborted, {:already_exists, _table, _node}} -> :mnesia.wait_for_tables([@table], :infinity)
    end
  end

  defp tracked, do: :mnesia.dirty_all_keys(@table)

  defp write(node, status) do
    commit(fn -> :mnesia.write({@table, node, status, DateTime.utc_now()}) end)
  end

  defp take_offline(node) do
    commit(fn ->
      [{@table, ^node, status, _last_change}] = :mnesia.wread({@table, node})

      if status == :offline,
        do: :ok,
        else: :mnesia.write({@table, node, :offline, DateTime.utc_now()})
    end)
  end

  defp commit(change) do
    {:atomic, :ok} = :mnesia.transaction(change)
    :ok
  end
end
