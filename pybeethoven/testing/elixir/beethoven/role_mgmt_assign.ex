defmodule Beethoven.RoleMgmt.Assign do
  @moduledoc """
  Keeps `RoleTracker`, which has the nodes that host each of the configured roles.

  A node that starts takes each role that lacks a node. Of a node that went offline each role passes to
  the node with the fewest, of those that do not have it. The modules of the roles are not run.
  """

  use Beethoven.DistrServer, subscribe?: true
  use Beethoven.CoreServer

  import Beethoven.DistrServer, only: [commit: 1]

  alias Beethoven.CoreServer
  alias Beethoven.Ready

  @table RoleTracker
  @any {@table, :_, :_, :_, :_, :_}

  def start_link(arg), do: Beethoven.DistrServer.start_link(__MODULE__, arg, name: __MODULE__)

  @impl true
  def config do
    %{
      tableName: @table,
      columns: [:role, :count, :assigned, :workers, :last_change],
      indexes: [],
      dataType: :ordered_set,
      copyType: :multi
    }
  end

  @impl true
  def create_action(_table_config) do
    roles = Application.fetch_env!(:beethoven, :roles)
    commit(fn -> for {role, _module, _args, count} <- roles, do: put(role, count, []) end)
  end

  @impl true
  def entry_point(_arg) do
    :ok = alert_me()
    {:ok, nil, {:continue, :assign}}
  end

  @impl true
  def handle_continue(:assign, state) do
    :ok = commit(&take_roles/0)
    Ready.announce()
    {:noreply, state}
  end

  @impl true
  def handle_cast({:node_update, {_node, :online}}, state), do: {:noreply, state}

  def handle_cast({:node_update, {node, :offline}}, state) do
    :ok = commit(fn -> if CoreServer.offline?(node), do: pass_on(node) end)
    {:noreply, state}
  end

  @impl true
  def handle_info({:mnesia_table_event, _event}, state), do: {:noreply, state}

  defp take_roles do
    for {@table, role, count, assigned, workers, _} <- rows(),
        count > assigned and node() not in workers,
        do: put(role, count, [node() | workers])
  end

  defp pass_on(node) do
    for {@table, role, count, _, workers, _} <- rows(), node in workers do
      others = List.delete(workers, node)
      put(role, count, heir(others) ++ others)
    end
  end

  # The one among the nodes with the table, so that no node without Beethoven is given a role.
  defp heir(workers) do
    candidates = Enum.sort(:mnesia.table_info(@table, :active_replicas)) -- workers

    candidates
    |> Enum.reject(&CoreServer.offline?/1)
    |> Enum.min_by(&hosted/1, fn -> nil end)
    |> List.wrap()
  end

  defp hosted(node),
    do: Enum.count(rows(), fn {@table, _, _, _, workers, _} -> node in workers end)

  defp rows, do: :mnesia.match_object(@table, @any, :write)

  defp put(role, count, workers) do
    :mnesia.write({@table, role, count, length(workers), workers, DateTime.utc_now()})
  end
end
