defmodule Beethoven.Ready do
  @moduledoc """
  Knows whether the node is ready, which it is once it has taken its roles, and who waits for that.

  State: the callers that wait, or `:ready`.
  """

  use GenServer

  def start_link(_arg), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Says that the node is ready."
  def announce, do: GenServer.cast(__MODULE__, :announce)

  @doc "Whether the node is ready."
  def ready?, do: GenServer.call(__MODULE__, :ready?)

  @doc "Returns `:ok` as soon as the node is ready, `:timeout` after so many milliseconds."
  def until_ready(timeout) do
    GenServer.call(__MODULE__, :until_ready, timeout)
  catch
    :exit, {:timeout, _call} -> :timeout
  end

  @impl true
  def init(waiting), do: {:ok, waiting}

  @impl true
  def handle_call(:ready?, _from, state), do: {:reply, state == :ready, state}
  def handle_call(:until_ready, _from, :ready), do: {:reply, :ok, :ready}
  def handle_call(:until_ready, from, waiting), do: {:noreply, [from | waiting]}

  @impl true
  def handle_cast(:announce, :ready), do: {:noreply, :ready}

  def handle_cast(:announce, waiting) do
    for from <- waiting, do: GenServer.reply(from, :ok)
    {:noreply, :ready}
  end
end
