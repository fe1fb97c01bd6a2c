defmodule Beethoven.SeekChat do
  @moduledoc """
  The JSON objects that Locator and BeaconServer exchange.

  Written out by hand because Elixir 1.14 on OTP 25 brings no JSON library. Strings, lists and objects
  are read whole; numbers, `true`, `false` and `null` are accepted and kept as text.
  """

  @blank [?\s, ?\t, ?\r, ?\n]
  @short %{?b => "\b", ?f => "\f", ?n => "\n", ?r => "\r", ?t => "\t"}

  @doc "The message as JSON. `payload` is an atom or a list of node names."
  def encode(sender, type, payload) do
    ~s({"sender":#{json(sender)},"type":#{json(type)},"payload":#{json(payload)}})
  end

  @doc "`{:ok, %{sender: _, type: _, payload: _}}`, all text, or `:error`."
  def decode(bytes) do
    with {%{"sender" => sender, "type" => type, "payload" => payload}, rest} <- value(bytes),
         "" <- skip(rest),
         true <- is_binary(sender) and is_binary(type) do
      {:ok, %{sender: sender, type: type, payload: payload}}
    else
      _other -> :error
    end
  catch
    :malformed -> :error
  end

  defp json(names) when is_list(names), do: "[" <> Enum.map_join(names, ",", &json/1) <> "]"
  defp json(name), do: ~s("#{name |> to_string() |> String.replace(["\\", "\""], &"\\#{&1}")}")

  defp value(text) do
    case skip(text) do
      <<?", rest::binary>> -> string(rest, [])
      <<?[, rest::binary>> -> items(skip(rest), ?], &value/1, [])
      <<?{, rest::binary>> -> object(rest)
      other -> scalar(other)
    end
  end

  defp object(text) do
    {pairs, rest} = items(skip(text), ?}, &pair/1, [])
    {Map.new(pairs), rest}
  end

  defp items(<<close, rest::binary>>, close, _item, []), do: {[], rest}

  defp items(text, close, item, found) do
    {one, rest} = item.(text)

    case skip(rest) do
      <<?,, rest::binary>> -> items(rest, close, item, [one | found])
      <<^close, rest::binary>> -> {Enum.reverse([one | found]), rest}
      _other -> throw(:malformed)
    end
  end

  defp pair(text) do
    with <<?", rest::binary>> <- skip(text),
         {key, rest} = string(rest, []),
         <<?:, rest::binary>> <- skip(rest),
         {value, rest} = value(rest) do
      {{key, value}, rest}
    else
      _other -> throw(:malformed)
    end
  end

  defp string(<<?", rest::binary>>, seen),
    do: {seen |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string(<<?\\, ?u, rest::binary>>, seen), do: unicode(rest, seen)

  defp string(<<?\\, c, rest::binary>>, seen),
    do: string(rest, [Map.get(@short, c, <<c>>) | seen])

  defp string(<<c, rest::binary>>, seen), do: string(rest, [c | seen])
  defp string("", _seen), do: throw(:malformed)

  defp unicode(<<high::binary-4, "\\u", low::binary-4, rest::binary>>, seen)
       when binary_part(high, 0, 1) in ["d", "D"] and binary_part(low, 0, 1) in ["d", "D"] do
    string(rest, [:unicode.characters_to_binary(hex(high) <> hex(low), {:utf16, :big}) | seen])
  end

  defp unicode(<<digits::binary-4, rest::binary>>, seen) do
    string(rest, [:unicode.characters_to_binary(hex(digits), {:utf16, :big}) | seen])
  end

  defp unicode(_text, _seen), do: throw(:malformed)

  defp hex(digits) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, bytes} -> bytes
      :error -> throw(:malformed)
    end
  end

  defp scalar(text) do
    case Regex.run(~r/^[-+.\w]+/, text) do
      [word] -> {word, binary_part(text, byte_size(word), byte_size(text) - byte_size(word))}
      nil -> throw(:malformed)
    end
  end

  defp skip(<<c, rest::binary>>) when c in @blank, do: skip(rest)
  defp skip(text), do: text
end
