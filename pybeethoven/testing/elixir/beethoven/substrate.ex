defmodule Beethoven.Substrate do
  @moduledoc """
  What a node runs once it knows its mode.

  The others follow the CoreServer, which forgets its followers when it crashes: so they start again
  after it. The beacon comes last and thus lets nobody in before the tables are there.
  """

  use Supervisor

  def start_link(mode), do: Supervisor.start_link(__MODULE__, mode, name: __MODULE__)

  @impl true
  def init(mode) do
    children = [
      {Beethoven.CoreServer, mode},
      Beethoven.Allocator,
      Beethoven.RoleMgmt.Assign,
      Beethoven.BeaconServer
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end
end
