defmodule MirrorPeer do
  @moduledoc "A BEAM with the table that Python mirrors, or that does with it what Python does."

  @spec_of_select [{{:tab, :"$1", :_, :"$2"}, [{:<, :"$2", 100.0}], [[:"$1"]]}]

  @doc "Makes the table, on this node."
  def create do
    :ok = :mnesia.start()
    options = [type: :ordered_set, ram_copies: [node()], attributes: [:key, :name, :score]]
    {:atomic, :ok} = :mnesia.create_table(:tab, options)
    :ok
  end

  @doc "Lets the Mnesia of this node be one with that of `node`."
  def join(node) do
    :ok = :mnesia.start()
    {:ok, [^node]} = :mnesia.change_config(:extra_db_nodes, [node])
    :ok
  end

  @doc "Lets the table have so many rows."
  def fill(size) do
    {:atomic, :ok} = :mnesia.clear_table(:tab)
    for n <- 1..size, do: :mnesia.dirty_write({:tab, n, "name of #{n}", n / 3})
    :ok
  end

  @doc "Writes every row anew."
  def write(size) do
    for n <- 1..size, do: :mnesia.dirty_write({:tab, n, "live", 0.5})
    :ok
  end

  @doc "The microseconds that a function of this module takes."
  def time(function, args), do: elem(:timer.tc(__MODULE__, function, args), 0)

  def snapshot, do: {:atomic, :ok} = :mnesia.add_table_copy(:tab, node(), :ram_copies)

  def drop, do: {:atomic, :ok} = :mnesia.del_table_copy(:tab, node())

  def read(size), do: for(n <- 1..size, do: :mnesia.dirty_read(:tab, n))

  def select, do: :mnesia.dirty_select(:tab, @spec_of_select)

  @doc "Gets every event while `node` writes the rows."
  def live(node, size) do
    {:ok, _node} = :mnesia.subscribe({:table, :tab, :detailed})
    :ok = :erpc.call(node, __MODULE__, :write, [size])
    for _ <- 1..size, do: receive(do: ({:mnesia_table_event, _} -> :ok))
    :mnesia.unsubscribe({:table, :tab, :detailed})
  end
end
