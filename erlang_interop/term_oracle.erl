%% Answers what a real BEAM makes of terms, in batches.
%%
%% Requests and answers are external terms with their length in front (four bytes), on stdin and
%% stdout; it ends with its stdin. `oracle.py` is the other side.
%%
%%   facts                      -> {Release, Node, Self, Terms}: terms that only a BEAM can make
%%   {order, [[Term]]}          -> for each list [{A < B, A == B, A =:= B}] of neighbours, and the
%%                                 list as lists:sort/1 gives it
%%   {match_spec, [{Rows, MS}]} -> for each {Test, Run, Set, OrderedSet}: what ets:test_ms/2 makes of
%%                                 each row, ets:match_spec_run/2 of all of them, and ets:select/2 of
%%                                 tables that hold them, whose key is the second element
-module(term_oracle).
-export([main/0]).

main() ->
    serve(open_port({fd, 0, 1}, [{packet, 4}, binary, eof])).

serve(Port) ->
    receive
        {Port, {data, Request}} ->
            port_command(Port, term_to_binary(answer(binary_to_term(Request)))),
            serve(Port);
        {Port, eof} ->
            halt(0)
    end.

answer(facts) ->
    {list_to_integer(erlang:system_info(otp_release)), node(), self(), own_terms()};
answer({order, Lists}) ->
    [{neighbours(List), lists:sort(List)} || List <- Lists];
answer({match_spec, Cases}) ->
    [{[test(Row, Spec) || Row <- Rows], run(Rows, Spec), select(set, Rows, Spec),
      select(ordered_set, Rows, Spec)}
     || {Rows, Spec} <- Cases].

own_terms() ->
    Port = hd(erlang:ports()),
    Pids = [self(), whereis(init), whereis(kernel_sup)],
    Funs = [F || X <- [1, 1.0, 2, {a, <<"b">>}], F <- [one(X), other(X), pair(X, self()), deep(X)]],
    [Port, make_ref(), make_ref() | Pids ++ Funs].

one(X) -> fun() -> X end.
other(X) -> fun(Y) -> {X, Y} end.
pair(X, Y) -> fun() -> {X, Y} end.
deep(X) -> F = one(X), fun() -> F() end.

neighbours([A | [B | _] = Rest]) -> [{A < B, A == B, A =:= B} | neighbours(Rest)];
neighbours(_) -> [].

test(Row, Spec) ->
    case ets:test_ms(Row, Spec) of
        {ok, Result} -> {ok, Result};
        {error, _} -> error
    end.

run(Rows, Spec) ->
    try ets:match_spec_run(Rows, ets:match_spec_compile(Spec)) of
        Results -> {ok, Results}
    catch
        error:badarg -> error
    end.

select(Type, Rows, Spec) ->
    Table = ets:new(rows, [Type, {keypos, 2}]),
    try
        true = ets:insert(Table, Rows),
        {ok, ets:select(Table, Spec)}
    catch
        error:badarg -> error
    after
        ets:delete(Table)
    end.
