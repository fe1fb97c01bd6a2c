defmodule ControlShell do
  @moduledoc """
  Lets the process that started this BEAM drive it over stdin and stdout.

      erl -noinput -s Elixir.ControlShell ...

  In comes `ID BASE64-OF-ELIXIR-SOURCE`, a line each. The sources are evaluated one after the other, in
  one process that traps exits, with the bindings of all before. Out goes `@ID ok BASE64-OF-TERM` or
  `@ID error BASE64-OF-TEXT`; `@0 ok OS-PID` says that the shell is ready. `@! BASE64-OF-TERM` is an
  event. Lines that do not start with `@` are somebody else's output.

  When stdin closes the node halts, so no BEAM outlives the one who started it.
  """

  @longest_line 65_536

  @doc "Starts the shell; `erl -s` calls it."
  def start do
    {:ok, _apps} = :application.ensure_all_started(:elixir)
    spawn(&read/0)
    :ok
  end

  @doc "Sends `term` to the one who started this BEAM, as an event."
  def emit(term), do: write(["@! ", encode(term)])

  @doc """
  Starts a process that emits each message it gets as `{tag, message}`, and gives its pid.

  It traps exits. It first registers itself as `name:` and runs `setup:`, a function that may monitor
  or link on its behalf; both are done when this returns.
  """
  def collect(tag, options \\ []) do
    parent = self()

    {pid, monitor} =
      spawn_monitor(fn ->
        prepare(options[:name], options[:setup])
        send(parent, {:collecting, self()})
        emit_messages(tag)
      end)

    receive do
      {:collecting, ^pid} ->
        Process.demonitor(monitor, [:flush])
        pid

      {:DOWN, ^monitor, _, _, reason} ->
        exit(reason)
    end
  end

  @doc "Returns what `condition` gives as soon as that is neither `nil` nor `false`; asks each 5 ms."
  def until(condition) do
    condition.() || later(condition)
  end

  defp later(condition) do
    Process.sleep(5)
    until(condition)
  end

  defp prepare(name, setup) do
    Process.flag(:trap_exit, true)
    if name, do: Process.register(self(), name)
    if setup, do: setup.()
  end

  defp emit_messages(tag) do
    receive do
      message -> emit({tag, message})
    end

    emit_messages(tag)
  end

  defp read do
    Port.open({:fd, 0, 0}, [:in, :binary, :eof, line: @longest_line])
    errors = Process.whereis(:standard_error)

    evaluator =
      spawn(fn ->
        Process.group_leader(self(), errors)
        Process.flag(:trap_exit, true)
        evaluate([])
      end)

    start_writer()
    write(["@0 ok ", encode(List.to_integer(:os.getpid()))])
    read(evaluator, [])
  end

  defp read(evaluator, parts) do
    receive do
      {_port, {:data, {:noeol, part}}} ->
        read(evaluator, [parts | part])

      {_port, {:data, {:eol, part}}} ->
        send(evaluator, {__MODULE__, IO.iodata_to_binary([parts | part])})
        read(evaluator, [])

      {_port, :eof} ->
        :erlang.halt(0, flush: false)
    end
  end

  defp evaluate(bindings) do
    receive do
      {__MODULE__, line} ->
        [id, source] = String.split(line)
        {answer, bindings} = answer(Base.decode64!(source), bindings)
        write([?@, id, answer])
        evaluate(bindings)
    end
  end

  defp answer(source, bindings) do
    {value, bindings} = Code.eval_string(source, bindings)
    {[" ok ", encode(value)], bindings}
  catch
    kind, reason ->
      text = Exception.format(kind, reason, __STACKTRACE__)
      {[" error ", Base.encode64(text)], bindings}
  end

  defp encode(term), do: Base.encode64(:erlang.term_to_binary(term))

  defp start_writer do
    reader = self()

    spawn(fn ->
      Process.register(self(), __MODULE__)
      port = Port.open({:fd, 1, 1}, [:out, :binary])
      send(reader, :writing)
      write_lines(port)
    end)

    receive do
      :writing -> :ok
    end
  end

  defp write(line) do
    send(__MODULE__, {:line, [line, ?\n]})
    :ok
  end

  defp write_lines(port) do
    receive do
      {:line, line} -> Port.command(port, line)
    end

    write_lines(port)
  end
end
