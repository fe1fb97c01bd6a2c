defmodule BeethovenPeer do
  @moduledoc """
  A stand-in for a Beethoven 0.3.9 node, for tests and the demo only.

  It does on real Mnesia what a Beethoven node lets others see of itself: it seeks a beacon, keeps
  `CoreTracker`, marks nodes online and offline and answers those who seek. Its processes bear
  Beethoven's registered names, for that is how other nodes address them. It has no roles, allocator
  or hardware monitor.

  It differs from 0.3.9 in two things: followers are told by the cast that Beethoven documents, where
  0.3.9 crashes, and the beacon listens on one address only.
  """

  use Supervisor

  @doc """
  Starts Mnesia and the stand-in; neither is linked to the caller.

    * `listener_port:` the beacons' port
    * `address:` where the own beacon listens, default `{127, 0, 0, 1}`
    * `cluster_net:`, `cluster_net_mask:` where to seek, default `{127, 0, 0, 0}` and `29`
    * `random_backoff:` milliseconds between two rounds of seeking, default `150..300`
  """
  def start(options) do
    :ok = :mnesia.start()
    {:ok, pid} = Supervisor.start_link(__MODULE__, options, name: Beethoven.RootSupervisor)
    Process.unlink(pid)
    {:ok, pid}
  end

  @impl true
  def init(options) do
    Supervisor.init([{BeethovenPeer.Locator, options}], strategy: :one_for_one)
  end

  @doc "Starts what a node runs once it knows its mode; the Locator calls it."
  def start_substrate(mode, options) do
    children = [{BeethovenPeer.CoreServer, mode}, {BeethovenPeer.BeaconServer, options}]

    Supervisor.start_child(Beethoven.RootSupervisor, %{
      id: Beethoven.Substrate,
      type: :supervisor,
      start:
        {Supervisor, :start_link, [children, [strategy: :one_for_one, name: Beethoven.Substrate]]}
    })
  end
end
