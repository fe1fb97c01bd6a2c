defmodule Beethoven.DistrServer do
  @moduledoc """
  A GenServer whose state is a Mnesia table that the nodes of the cluster share.

      defmodule Inventory do
        use Beethoven.DistrServer, subscribe?: true
        ...
      end

      {:ok, _pid} = Beethoven.DistrServer.start_link(Inventory, [], name: Inventory)

  `init/1` sees to it that there is the table, and a copy of it on this node unless it is `:local` to
  another, and goes on with `entry_point/1`. With `subscribe?: true` there is a copy in any case, and
  the server gets the table's detailed events. A module also gets functions that read its table.
  """

  @type config :: %{
          tableName: atom(),
          columns: [atom()],
          indexes: [atom()],
          dataType: :set | :ordered_set | :bag,
          copyType: :multi | :local
        }
  @type table_config :: {atom(), [atom()], [atom()], atom(), atom()}

  @doc "The table."
  @callback config() :: config()

  @doc "Fills the table; only the process that created it is asked to."
  @callback create_action(table_config()) :: :ok

  @doc "What `init/1` is to other GenServers."
  @callback entry_point(arg :: any()) ::
              {:ok, any()}
              | {:ok, any(), timeout() | :hibernate | {:continue, any()}}
              | :ignore
              | {:stop, any()}

  defmacro __using__(options) do
    quote do
      use GenServer

      @behaviour Beethoven.DistrServer

      @impl GenServer
      def init(arg), do: Beethoven.DistrServer.enter(__MODULE__, arg, unquote(options))

      @doc "The table's name."
      def get_table_name, do: config().tableName

      @doc "Sends the caller the table's events from now on."
      def subscribe(type \\ :simple) do
        {:ok, _node} = :mnesia.subscribe({:table, get_table_name(), type})
        :ok
      end

      @doc "Every row."
      def fetch_all, do: dirty_select([{:_, [], [:"$_"]}])

      @doc "The rows of a key."
      def fetch(key), do: :mnesia.dirty_read(get_table_name(), key)

      @doc "What a match specification gives."
      def dirty_select(match_spec), do: :mnesia.dirty_select(get_table_name(), match_spec)

      @doc "Whether the cluster has the table."
      def table_exists?, do: Beethoven.DistrServer.table_exists?(get_table_name())

      @doc "Waits until the cluster has the table; asks each `interval` milliseconds."
      def until_exists(interval \\ 15, timeout \\ 1000) do
        Beethoven.DistrServer.until_exists(get_table_name(), interval, timeout)
      end
    end
  end

  defdelegate start_link(module, arg, options \\ []), to: GenServer
  defdelegate call(server, request, timeout \\ 5000), to: GenServer
  defdelegate cast(server, request), to: GenServer

  @doc "The `init/1` of all such servers."
  def enter(module, arg, options) do
    config = module.config()
    :ok = ensure_table(module, config)
    if options[:subscribe?], do: :ok = watch(module, config.tableName)
    module.entry_point(arg)
  end

  @doc "Whether the cluster has `table`."
  def table_exists?(table), do: table in :mnesia.system_info(:tables)

  @doc "`:ok` once the cluster has `table`; `{:error, :timeout}` after so many milliseconds."
  def until_exists(table, interval, timeout) do
    cond do
      table_exists?(table) ->
        :ok

      timeout <= 0 ->
        {:error, :timeout}

      true ->
        Process.sleep(interval)
        until_exists(table, interval, timeout - interval)
    end
  end

  @doc "Runs `change` in a transaction. For the servers of the stand-in."
  def commit(change) do
    {:atomic, _result} = :mnesia.transaction(change)
    :ok
  end

  defp ensure_table(module, config) do
    if table_exists?(config.tableName), do: share(config), else: create(module, config)
  end

  # Another node may create it at the same moment; Mnesia lets one of them.
  defp create(module, config) do
    %{tableName: table, columns: columns, indexes: indexes, dataType: type} = config
    copies = config.copyType
    definition = [type: type, attributes: columns, index: indexes, ram_copies: homes(copies)]

    case :mnesia.create_table(table, definition) do
      {:atomic, :ok} -> module.create_action({table, columns, indexes, type, copies})
      {:aborted, {:already_exists, _table}} -> share(config)
    end
  end

  defp homes(:multi), do: [node() | Node.list()]
  defp homes(:local), do: [node()]

  defp share(%{copyType: :multi, tableName: table}), do: copy(table)
  defp share(%{copyType: :local}), do: :ok

  # Mnesia gives a node that was here before its copy back by itself, which takes a moment.
  defp copy(table) do
    case :mnesia.add_table_copy(table, node(), :ram_copies) do
      {:atomic, :ok} -> :ok
      {:aborted, {:already_exists, _table, _node}} -> :ok
    end

    :mnesia.wait_for_tables([table], :infinity)
  end

  defp watch(module, table) do
    if node() not in :mnesia.table_info(table, :active_replicas), do: :ok = copy(table)
    module.subscribe(:detailed)
  end
end
