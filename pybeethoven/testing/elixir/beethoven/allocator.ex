defmodule Beethoven.Allocator do
  @moduledoc """
  Keeps `AllocTracker`, which has a score for each node, and says who has the least to do.

  0.3.9 makes the score from signals of the node's load; here it is 0.0 until `set_score/1`. Only nodes
  that are visible have a row: work that is allocated is for Elixir nodes.
  """

  use Beethoven.DistrServer, subscribe?: true
  use Beethoven.CoreServer

  import Beethoven.DistrServer, only: [commit: 1]

  alias Beethoven.CoreServer

  @table AllocTracker

  def start_link(arg), do: Beethoven.DistrServer.start_link(__MODULE__, arg, name: __MODULE__)

  @doc "The node with the least score."
  def allocate, do: hd(allocation_list())

  @doc "The nodes, the one with the least score first."
  def allocation_list, do: for({@table, node, _, _} <- get_all(), do: node)

  @doc "The rows, the one with the least score first."
  def get_all, do: Enum.sort_by(fetch_all(), fn {@table, node, score, _} -> {score, node} end)

  @doc "Gives this node a score. The stand-in's own, for tests."
  def set_score(score), do: commit(fn -> put(node(), score / 1) end)

  @impl true
  def config do
    %{
      tableName: @table,
      columns: [:node, :score, :last_change],
      indexes: [],
      dataType: :set,
      copyType: :multi
    }
  end

  @impl true
  def create_action(_table_config) do
    commit(fn -> for node <- [node() | Node.list()], do: put(node, 0.0) end)
  end

  @impl true
  def entry_point(_arg) do
    :ok = set_score(0.0)
    :ok = alert_me()
    {:ok, nil}
  end

  @impl true
  def handle_cast({:node_update, {node, :online}}, state) do
    if node in Node.list(), do: :ok = commit(fn -> add(node) end)
    {:noreply, state}
  end

  def handle_cast({:node_update, {node, :offline}}, state) do
    :ok = commit(fn -> remove(node) end)
    {:noreply, state}
  end

  @impl true
  def handle_info({:mnesia_table_event, _event}, state), do: {:noreply, state}

  # The node itself may have been faster, and may have another score by now.
  defp add(node), do: if(:mnesia.wread({@table, node}) == [], do: put(node, 0.0))

  # It may be back by now.
  defp remove(node), do: if(CoreServer.offline?(node), do: :mnesia.delete({@table, node}))

  defp put(node, score), do: :mnesia.write({@table, node, score, DateTime.utc_now()})
end
