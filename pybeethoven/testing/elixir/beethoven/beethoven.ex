defmodule Beethoven do
  @moduledoc "What a Beethoven node tells programs that run on it."

  alias Beethoven.CoreServer
  alias Beethoven.RoleMgmt.Assign

  @doc "Whether this node is up and has taken its roles."
  defdelegate ready?, to: Beethoven.Ready

  @doc "Returns `:ok` as soon as `ready?/0`, `:timeout` after so many milliseconds."
  defdelegate until_ready(timeout \\ 5000), to: Beethoven.Ready

  @doc "`:standalone` or `:clustered`."
  defdelegate get_node_status, to: CoreServer, as: :get_mode

  @doc "Every node in the tracker."
  def get_cluster_nodes, do: for({CoreTracker, node, _, _} <- CoreServer.fetch_all(), do: node)

  @doc "Every node in the tracker that is online."
  def get_active_cluster_nodes do
    for {CoreTracker, node, :online, _} <- CoreServer.fetch_all(), do: node
  end

  @doc "The tracker's rows, as maps."
  def get_detailed_cluster_nodes do
    for {CoreTracker, node, status, last_change} <- CoreServer.fetch_all() do
      %{node: node, status: status, last_change: last_change}
    end
  end

  @doc "Every role, how many nodes are to have it, how many have, and which."
  def get_roles do
    for {RoleTracker, role, count, assigned, nodes, _} <- Assign.fetch_all() do
      %{role: role, count: count, assigned: assigned, nodes: nodes}
    end
  end

  @doc "The nodes that have a role."
  def whois_hosting(role) do
    for {RoleTracker, _, _, _, nodes, _} <- Assign.fetch(role), node <- nodes, do: node
  end

  @doc "The node with the least to do."
  defdelegate allocate, to: Beethoven.Allocator
end
