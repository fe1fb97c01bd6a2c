defmodule BenchTerms do
  @moduledoc "What Beethoven nodes say, in the bytes in which a BEAM sends it: with UTF-8 atoms."

  @doc "A `node_update`, as a follower gets it."
  def node_update do
    encode({:"$gen_cast", {:node_update, {:"b@127.0.0.1", :offline}}})
  end

  @doc "A detailed event of the tracker."
  def tracker_event do
    event = {:write, CoreTracker, row(1, :offline), [row(1, :online)], {:tid, 1234, self()}}
    encode({:mnesia_table_event, event})
  end

  @doc "So many rows of the tracker."
  def tracker_rows(number), do: encode(for n <- 1..number, do: row(n, :online))

  defp row(number, status) do
    seen = DateTime.add(~U[2026-11-22 07:11:20.052151Z], number * 12_345_678, :microsecond)
    {CoreTracker, :"node#{rem(number, 1000)}@127.0.0.1", status, seen}
  end

  # The minor version is the default from OTP 26 on.
  defp encode(term), do: :erlang.term_to_binary(term, minor_version: 2)
end
