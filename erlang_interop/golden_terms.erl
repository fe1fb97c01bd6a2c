%% Golden terms: what a real BEAM writes, checked in under tests/etf/golden/.
%%
%% To write the file again (with OTP 25, from the root of the repository):
%%
%%     erlc -o /tmp erlang_interop/golden_terms.erl
%%     erl -noshell -pa /tmp -run golden_terms main tests/etf/golden/otp25.txt -run init stop
%%
%% Each line is a name, the external term in hex and, for the reader, the term as Erlang prints it
%% (cut to 100 characters), with tabs in between. Everything is made from constants, so the output
%% changes with this file only; the one exception is the pid inside of funs.
%%
%% check/1 is the other direction: it reads lines of a name, golden hex and our hex, and prints each
%% line on which the two are not the same term.
-module(golden_terms).
-export([main/1, check/1, identity/1]).

main([File]) ->
    Lines = [line(Golden) || Golden <- terms() ++ other_forms() ++ hand_made()],
    ok = file:write_file(File, Lines).

line({Name, Binary}) ->
    Printed = lists:flatten(io_lib:format("~0P", [binary_to_term(Binary), 30])),
    [Name, $\t, hex(Binary), $\t, [ascii(C) || C <- lists:sublist(Printed, 100)], $\n].

ascii(C) when C < 127 -> C;
ascii(C) -> io_lib:format("\\x{~.16b}", [C]).

hex(Binary) -> string:lowercase(binary:encode_hex(Binary)).

check([File]) ->
    {ok, Content} = file:read_file(File),
    [check_line(binary:split(Line, <<"\t">>, [global]))
     || Line <- binary:split(Content, <<"\n">>, [global, trim])],
    io:format("checked~n").

check_line([Name, Golden, Ours]) ->
    A = binary_to_term(binary:decode_hex(Golden)),
    try binary_to_term(binary:decode_hex(Ours)) of
        B when A =:= B -> check_bits(Name, A, B);
        B -> io:format("~s: ~0P is not ~0P~n", [Name, B, 50, A, 50])
    catch
        _:Reason -> io:format("~s: ~0p~n", [Name, Reason])
    end.

%% Before OTP 27, 0.0 =:= -0.0; their bits tell.
check_bits(Name, A, B) ->
    case term_to_binary(A, [deterministic]) =:= term_to_binary(B, [deterministic]) of
        true -> ok;
        false -> io:format("~s: equal, but other bits~n", [Name])
    end.

%% As the distribution writes them: atoms as UTF-8.
terms() ->
    [{Name, term_to_binary(Term, [{minor_version, 2}, deterministic])}
     || {Name, Term} <- integers() ++ floats() ++ atoms() ++ sequences() ++ binaries()
                        ++ maps() ++ functions() ++ beethoven()].

integers() ->
    [{"int_" ++ integer_to_list(N), N}
     || N <- [0, 1, 255, 256, -1, -128, 65535, 65536, 16#7FFFFFF, 16#8000000, -16#8000000,
              -16#8000001, 16#7FFFFFFF, 16#80000000, -16#80000000, -16#80000001, 16#FFFFFFFF,
              16#100000000, 1 bsl 59, -(1 bsl 59) - 1, (1 bsl 63) - 1, 1 bsl 63, -(1 bsl 63),
              (1 bsl 64) - 1, 1 bsl 64, -(1 bsl 64)]]
    ++ [{"int_255_bytes", (1 bsl 2040) - 1}, {"int_256_bytes", 1 bsl 2040},
        {"int_minus_256_bytes", -(1 bsl 2040)}, {"int_1000_bytes", (1 bsl 8000) - 3}].

floats() ->
    [{"float_zero", 0.0}, {"float_minus_zero", -0.0}, {"float_one", 1.0}, {"float_tenth", 0.1},
     {"float_minus", -1.5e-7}, {"float_denormal", 5.0e-324}, {"float_denormal_max", 2.2250738585072e-308},
     {"float_max", 1.7976931348623157e308}].

atoms() ->
    [{"atom_ok", ok}, {"atom_true", true}, {"atom_false", false}, {"atom_nil", nil},
     {"atom_undefined", undefined}, {"atom_empty", ''}, {"atom_latin1", 'caf\x{e9}'},
     {"atom_unicode", '\x{4f60}\x{597d}'}, {"atom_astral", '\x{1F600}'},
     {"atom_255", list_to_atom(lists:duplicate(255, $a))},
     {"atom_255_two_bytes", list_to_atom(lists:duplicate(255, 16#E9))},
     {"atom_127_two_bytes", list_to_atom(lists:duplicate(127, 16#E9))},
     {"atom_128_two_bytes", list_to_atom(lists:duplicate(128, 16#E9))},
     {"atom_255_four_bytes", list_to_atom(lists:duplicate(255, 16#1F600))}].

sequences() ->
    [{"tuple_0", {}}, {"tuple_1", {a}}, {"tuple_nested", {{}, {1, {2, {3}}}}},
     {"tuple_255", list_to_tuple(lists:duplicate(255, 7))},
     {"tuple_256", list_to_tuple(lists:duplicate(256, 7))},
     {"list_empty", []}, {"list_string", "hello"}, {"list_atoms", [a, b]}, {"list_256", [255, 256]},
     {"list_nested", [[], [[]], [1, [2.0]]]}, {"list_improper", [1, 2 | tail]},
     {"list_improper_pair", [alias | 5]}, {"list_improper_nested", [[a | b] | {c}]},
     {"list_improper_binary", [1 | <<"x">>]},
     {"deep_tuples", lists:foldl(fun(_, T) -> {T} end, bottom, lists:seq(1, 500))},
     {"deep_lists", lists:foldl(fun(_, T) -> [T] end, [], lists:seq(1, 500))},
     {"deep_maps", lists:foldl(fun(_, T) -> #{k => T} end, #{}, lists:seq(1, 500))}].

binaries() ->
    [{"binary_empty", <<>>}, {"binary_text", <<"Etc/UTC">>}, {"binary_utf8", <<"gr\x{fc}n"/utf8>>},
     {"binary_all_bytes", list_to_binary(lists:seq(0, 255))},
     {"binary_300", binary:copy(<<0>>, 300)}]
    ++ [{"bits_" ++ integer_to_list(N), <<16#ABCD:16, (1 bsl N - 1):N>>} || N <- lists:seq(1, 7)]
    ++ [{"bits_only", <<1:1>>}].

maps() ->
    [{"map_empty", #{}}, {"map_atoms", #{a => 1, b => 2}}, {"map_mixed", #{1 => a, <<"k">> => [x]}},
     {"map_int_float", #{1 => int, 1.0 => float}}, {"map_true_one", #{true => a, 1 => b}},
     {"map_false_zero", #{false => a, 0 => b, 0.0 => c}},
     {"map_nested_collision", #{{1} => int, {1.0} => float}},
     {"map_list_keys", #{[1] => a, "ab" => b, [] => c}}, {"map_map_keys", #{#{} => a, #{b => 1} => c}},
     {"map_improper_key", #{[a | b] => c}}, {"map_tuple_with_list_key", #{{[1], 2} => x}},
     {"map_collision_inside_key", #{#{1 => a, 1.0 => b} => c}},
     {"map_32", maps:from_list([{N, N * N} || N <- lists:seq(1, 32)])},
     {"map_33", maps:from_list([{N, N * N} || N <- lists:seq(1, 33)])},
     {"map_300", maps:from_list([{{N, <<N:32>>}, N} || N <- lists:seq(1, 300)])},
     {"map_300_collisions", maps:from_list([{N, i} || N <- lists:seq(1, 150)]
                                           ++ [{float(N), f} || N <- lists:seq(1, 150)])}].

functions() ->
    X = identity(#{env => [1, 2 | three]}),
    Inner = fun(A) -> {A, X} end,
    [{"export", fun lists:map/2}, {"export_mnesia", fun mnesia:write/1},
     {"export_names", fun true:nil/255}, {"fun_no_env", fun() -> ok end}, {"fun_env", Inner},
     {"fun_env_of_funs", fun(B) -> {Inner, B, fun lists:map/2} end},
     {"fun_in_tuple", {a, Inner, b}}, {"fun_own_module", fun identity/1},
     {"map_fun_keys", #{Inner => 1, fun lists:map/2 => 2}}].

identity(X) -> X.

beethoven() ->
    Row = fun(Status) -> {'Elixir.CoreTracker', 'a@10.0.0.1', Status, date_time()} end,
    [{"date_time", date_time()}, {"node_update", {'$gen_cast', {node_update, {'b@127.0.0.1', offline}}}},
     {"tracker_row", Row(online)},
     {"tracker_event", {mnesia_table_event, {write, 'Elixir.CoreTracker', Row(offline), [Row(online)],
                                             {tid, 5, pid()}}}},
     {"gen_call", {'$gen_call', {pid(), [[alias | ref()] | 7]}, {is_auth, 'a@10.0.0.1'}}},
     {"pid_ref_keys", #{pid() => a, ref() => b}}].

date_time() ->
    #{'__struct__' => 'Elixir.DateTime', calendar => 'Elixir.Calendar.ISO', year => 2026,
      month => 11, day => 22, hour => 8, minute => 1, second => 59, microsecond => {12345, 6},
      std_offset => 0, utc_offset => 0, time_zone => <<"Etc/UTC">>, zone_abbr => <<"UTC">>}.

pid() -> binary_to_term(<<131, 88, (node_atom())/binary, 143:32, 2:32, 1700000000:32>>).

ref() -> binary_to_term(<<131, 90, 3:16, (node_atom())/binary, 1700000000:32, 1:32, 2:32, 3:32>>).

node_atom() -> <<119, 15, "golden@10.0.0.1">>.

%% What term_to_binary writes when asked for other forms.
other_forms() ->
    All = [ok, 'caf\x{e9}', 1.5, "string", #{a => {1, 2}}],
    Seq = fun(N) -> lists:duplicate(N, 7) end,
    [{"minor_0", term_to_binary(All, [{minor_version, 0}])},
     {"minor_1", term_to_binary(All, [{minor_version, 1}])},
     {"compressed", term_to_binary(Seq(500), [compressed])},
     {"compressed_9_map", term_to_binary(maps:from_list([{N, a} || N <- Seq(1) ++ lists:seq(1, 100)]),
                                         [{compressed, 9}, deterministic])},
     {"compressed_string_65535", term_to_binary(Seq(65535), [compressed])},
     {"compressed_list_65536", term_to_binary(Seq(65536), [compressed])},
     {"compressed_tuple_70000", term_to_binary(list_to_tuple(Seq(70000)), [compressed])},
     {"compressed_int_70000_bytes", term_to_binary(1 bsl 560000, [compressed])},
     {"compressed_binary_1_mib", term_to_binary(binary:copy(<<"ab">>, 524288), [compressed])}].

%% Forms that OTP 25 reads but no longer writes, and identifiers of chosen sizes.
hand_made() ->
    Node = node_atom(),
    Max = <<16#FFFFFFFF:32>>,
    [{Name, <<131, Bytes/binary>>}
     || {Name, Bytes} <-
            [{"old_atom", <<100, 3:16, "abc">>}, {"old_atom_latin1", <<100, 1:16, 16#E9>>},
             {"old_small_atom", <<115, 3, "abc">>}, {"old_small_atom_true", <<115, 4, "true">>},
             {"long_form_atom", <<118, 3:16, "abc">>}, {"long_form_int", <<98, 7:32>>},
             {"long_form_big", <<111, 1:32, 1, 7>>}, {"long_form_tuple", <<105, 2:32, 97, 1, 97, 2>>},
             {"big_with_zeros", <<110, 4, 0, 7, 0, 0, 0>>}, {"big_zero", <<110, 0, 0>>},
             {"bits_8", <<77, 2:32, 8, "ab">>}, {"bits_padding", <<77, 1:32, 3, 16#FF>>},
             {"string_as_list", <<108, 1:32, 97, 65, 106>>},
             {"string_empty", <<107, 0:16>>}, {"list_of_none", <<108, 0:32, 106>>},
             {"list_of_none_tail", <<108, 0:32, 97, 5>>},
             {"list_tail_list", <<108, 1:32, 97, 1, 108, 1:32, 97, 2, 106>>},
             {"list_tail_string", <<108, 1:32, 97, 1, 107, 2:16, 2, 3>>},
             {"list_tail_improper", <<108, 1:32, 97, 1, 108, 1:32, 97, 2, 97, 3>>},
             {"pid", <<88, Node/binary, 143:32, 2:32, 1700000000:32>>},
             {"pid_max", <<88, Node/binary, Max/binary, Max/binary, Max/binary>>},
             {"pid_old", <<103, Node/binary, 143:32, 2:32, 3>>},
             {"pid_latin1_node", <<88, 100, 3:16, "a@b", 1:32, 0:32, 0:32>>},
             {"pid_node_nil", <<88, 119, 3, "nil", 1:32, 0:32, 0:32>>},
             {"port", <<89, Node/binary, 7:32, 1700000000:32>>},
             {"port_28_bits", <<89, Node/binary, 16#FFFFFFF:32, 1:32>>},
             {"port_old", <<102, Node/binary, 7:32, 3>>},
             {"port_v4", <<120, Node/binary, 16#10000000:64, 1:32>>},
             {"port_v4_max", <<120, Node/binary, Max/binary, Max/binary, Max/binary>>},
             {"port_v4_small", <<120, Node/binary, 7:64, 1:32>>},
             {"ref_1", <<90, 1:16, Node/binary, 9:32, 1:32>>},
             {"ref_3", <<90, 3:16, Node/binary, 9:32, 1:32, 2:32, 3:32>>},
             {"ref_5", <<90, 5:16, Node/binary, Max/binary, 1:32, 2:32, 3:32, 4:32, Max/binary>>},
             {"ref_new", <<114, 3:16, Node/binary, 3, 1:32, 2:32, 3:32>>},
             {"ref_old", <<101, Node/binary, 7:32, 3>>}]].
