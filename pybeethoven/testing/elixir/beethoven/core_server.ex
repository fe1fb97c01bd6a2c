defmodule Beethoven.CoreServer do
  @moduledoc """
  Keeps `CoreTracker` and tells followers what changes in it.

  A module that says `use Beethoven.CoreServer` gets `alert_me/0`, which makes the process of its name
  a follower. State: `{mode, followers}`.
  """

  use Beethoven.DistrServer, subscribe?: true

  import Beethoven.DistrServer, only: [commit: 1]

  alias Beethoven.BeaconServer

  @table CoreTracker

  defmacro __using__(_options) do
    quote do
      @doc "Lets this node's CoreServer tell this module's process of changes."
      def alert_me, do: Beethoven.CoreServer.alert_me(__MODULE__)
    end
  end

  def start_link(mode), do: Beethoven.DistrServer.start_link(__MODULE__, mode, name: __MODULE__)

  @doc "Lets this node's CoreServer cast `{:node_update, {node, status}}` to `follower`."
  def alert_me(follower), do: GenServer.cast(__MODULE__, {:alert_me, follower})

  @doc "Marks `node` online and lets Mnesia connect to it."
  def new_node(node), do: GenServer.call(__MODULE__, {:add_node, node})

  @doc "`:standalone` or `:clustered`."
  def get_mode, do: GenServer.call(__MODULE__, :get_mode)

  @doc "Lets Mnesia connect to `node`."
  def add_node_to_mnesia(node) do
    :mnesia.change_config(:extra_db_nodes, [node])
    :ok
  end

  @doc "Whether the tracker has `node` offline, read in the caller's transaction."
  def offline?(node), do: match?([{@table, _, :offline, _}], :mnesia.read(@table, node))

  @impl true
  def config do
    %{
      tableName: @table,
      columns: [:node, :status, :last_change],
      indexes: [],
      dataType: :ordered_set,
      copyType: :multi
    }
  end

  @impl true
  def create_action(_table_config), do: :ok

  @impl true
  def entry_point(mode) do
    :ok = write(node(), :online)
    for node <- tracked(), node != node(), do: Node.monitor(node, true)
    {:ok, {mode, []}}
  end

  @impl true
  def handle_call(:get_mode, _from, {mode, _followers} = state), do: {:reply, mode, state}

  def handle_call({:add_node, node}, _from, state) do
    :ok = write(node, :online)
    {:reply, add_node_to_mnesia(node), state}
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

  defp tracked, do: :mnesia.dirty_all_keys(@table)

  defp write(node, status), do: commit(fn -> put(node, status) end)

  defp take_offline(node) do
    commit(fn ->
      [{@table, ^node, status, _last_change}] = :mnesia.wread({@table, node})
      if status == :online, do: put(node, :offline)
    end)
  end

  defp put(node, status), do: :mnesia.write({@table, node, status, DateTime.utc_now()})
end
