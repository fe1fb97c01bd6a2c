defmodule TrackerWatch do
  @moduledoc "Reads CoreTracker on this node, and waits for what it is to hold. For tests and the demo."

  @doc "The status of every node in the tracker."
  def statuses do
    for {CoreTracker, node, status, _last_change} <- rows(), into: %{}, do: {node, status}
  end

  @doc "Returns `statuses/0` as soon as it agrees with `expected`, a part of it."
  def await(expected) do
    task =
      Task.async(fn ->
        {:ok, _node} = :mnesia.subscribe({:table, CoreTracker, :simple})
        agree(expected)
      end)

    Task.await(task, :infinity)
  end

  defp agree(expected) do
    now = statuses()

    if Map.take(now, Map.keys(expected)) == expected do
      now
    else
      receive do
        {:mnesia_table_event, _event} -> agree(expected)
      end
    end
  end

  # Mnesia sends an event before it writes the row; the lock waits for the row.
  defp rows do
    pattern = {CoreTracker, :_, :_, :_}

    {:atomic, rows} =
      :mnesia.transaction(fn -> :mnesia.match_object(CoreTracker, pattern, :read) end)

    rows
  end
end
