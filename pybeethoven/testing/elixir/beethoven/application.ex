defmodule Beethoven.Application do
  @moduledoc """
  A stand-in for Beethoven 0.3.9, for tests and the demo only.

  It does on real Mnesia what a Beethoven node lets others see of itself: it seeks a beacon, keeps
  `CoreTracker`, `RoleTracker` and `AllocTracker`, marks nodes online and offline and answers those who
  seek. Modules, processes and tables bear Beethoven's names, for that is how other nodes address them.
  It runs no roles and has no hardware monitor.

  It differs from 0.3.9 in these things: followers are told by the cast that Beethoven documents, where
  0.3.9 crashes; nodes that create a table at once share it, where 0.3.9 crashes; the beacon listens on
  one address only, the node's own if that is of the loopback; scores are what
  `Beethoven.Allocator.set_score/1` was given.

  Its settings, in the application's environment, are Beethoven's too:

    * `listener_port:` the beacons' port
    * `cluster_net:`, `cluster_net_mask:` where to seek, strings: `"127.0.0.0"` and `"29"`
    * `common_random_backoff:` milliseconds between two rounds of seeking, a range
    * `roles:` a list of `{name, module, args, instances}`
  """

  use Application

  @impl true
  def start(_type, _args) do
    Supervisor.start_link([Beethoven.Ready, Beethoven.Locator],
      strategy: :one_for_one,
      name: Beethoven.RootSupervisor
    )
  end
end
