%% What a process of a BEAM sees of the processes of another node, told as a transcript.
%%
%% play(Group, Target) plays each scenario of a group with node Target, which has the processes of
%% `transcript_peer`, in Erlang or in Python, and gives [{Scenario, [{Step, Seen}]}]. In what was
%% seen pids and references are numbered as they come, and nodes called `client` and `target`, so
%% that two transcripts are equal when two nodes behave alike. A scenario that waits in vain for a
%% message is {broken, Reason} instead. The last step is `left`: what else was in the mailbox.
%%
%% The order in which signals of one process arrive is part of a transcript; where Erlang leaves the
%% order open, what was seen is sorted. A scenario's process traps exits; what happens to one that
%% does not is seen at a `child`.
-module(transcript).
-export([groups/0, play/2]).

-define(PATIENCE, 15000). % ms until what should come counts as missing
-define(BRIEFLY, 50). % ms that calls wait for a reply that must not come
-define(LARGE, 3000000). % bytes, many fragments
-define(NAME, transcript_name).
-define(SERVER, transcript_server).

groups() -> [links, signals, monitors, aliases, calls, requests, system, order, spawns, nodes].

play(Group, Target) -> [{Name, play_one(Scene, Target)} || {Name, Scene} <- scenarios(Group)].

play_one(Scene, Target) ->
    {Pid, Ref} = spawn_monitor(fun() -> exit({played, steps_of(Scene, Target)}) end),
    receive
        {'DOWN', Ref, process, Pid, {played, Steps}} -> alike(Steps, Target);
        {'DOWN', Ref, process, Pid, Reason} -> {broken, Reason}
    end.

steps_of(Scene, Target) ->
    process_flag(trap_exit, true),
    put(steps, []),
    settle(Target),
    Scene(Target),
    settle(Target),
    see(left, flush()),
    lists:reverse(get(steps)).

%% The vocabulary of the scenarios.

see(Step, Seen) -> put(steps, [{Step, Seen} | get(steps)]).

next() -> receive Message -> Message after ?PATIENCE -> error(nothing_came) end.

next(Count) -> [next() || _ <- lists:seq(1, Count)].

caught(Fun) -> try {returned, Fun()} catch Kind:Reason -> {Kind, Reason} end.

flush() -> receive Message -> [Message | flush()] after 0 -> [] end.

%% Afterwards the target has done what this process has asked for so far.
settle(Target) -> pong = erpc:call(Target, transcript_peer, ping, [], ?PATIENCE).

actor(Target) -> erpc:call(Target, transcript_peer, start_actor, [], ?PATIENCE).

server(Target) -> erpc:call(Target, transcript_peer, start_server, [?SERVER], ?PATIENCE).

ask(Actor, Command) ->
    Ref = make_ref(),
    Actor ! {ask, self(), Ref, Command},
    receive {Ref, Result} -> Result after ?PATIENCE -> error({no_answer_to, Command}) end.

tell_to(Actor, Command) -> Actor ! {tell, Command}.

dead(Target) ->
    Actor = actor(Target),
    ended(Actor, fun() -> exit(Actor, kill) end),
    Actor.

%% Run Fun, and give the reason with which Pid has ended then.
ended(Pid, Fun) ->
    Ref = monitor(process, Pid),
    Fun(),
    receive {'DOWN', Ref, _, _, Reason} -> Reason after ?PATIENCE -> error(still_alive) end.

%% The reason with which a process ends that runs Fun.
end_of(Fun) ->
    {_, Ref} = spawn_monitor(Fun),
    receive {'DOWN', Ref, _, _, Reason} -> Reason after ?PATIENCE -> error(still_alive) end.

%% The pid of a process of this node that is no more.
gone() ->
    Pid = spawn(fun() -> ok end),
    ended(Pid, fun() -> ok end),
    Pid.

%% A pid of that node which no process has had, and one of an earlier node of that name.
never(Target) -> changed(actor(Target), fun(Id, Creation) -> {Id bxor 16#4000, Creation} end).
earlier(Target) -> changed(actor(Target), fun(Id, Creation) -> {Id, Creation bxor 16#100} end).

changed(Pid, Change) ->
    Binary = term_to_binary(Pid),
    Size = byte_size(Binary) - 12,
    <<Before:Size/binary, Id:32, Serial:32, Creation:32>> = Binary,
    {NewId, NewCreation} = Change(Id, Creation),
    binary_to_term(<<Before/binary, NewId:32, Serial:32, NewCreation:32>>).

%% Names that no process of the target has; Python has its own values for some of the atoms.
no_names(Target) ->
    [{{name, Name}, {Name, Target}} || Name <- [nosuch_name, nil, true, 'n\x{e4}m\x{3b5}']].

%% Pids of the target that nobody has.
nobodies(Target) -> [{dead, dead(Target)}, {never, never(Target)}, {earlier, earlier(Target)}].

%% A process of this node that does not trap exits and does as it is told, with Prepare first.
child(Prepare) ->
    Parent = self(),
    Child = spawn(fun() -> Prepare(), Parent ! {ready, self()}, obey_parent() end),
    receive {ready, Child} -> Child after ?PATIENCE -> error(child_not_ready) end.

obey_parent() ->
    receive
        {exit, Reason} -> exit(Reason);
        {do, Parent, Fun} -> Parent ! {did, self(), Fun()}, obey_parent()
    end.

do(Child, Fun) ->
    Child ! {do, self(), Fun},
    receive {did, Child, Result} -> Result after ?PATIENCE -> error(child_is_gone) end.

%% End the connection from this side and wait until that is known here.
disconnect(Target) ->
    monitor_node(Target, true),
    true = erlang:disconnect_node(Target),
    receive {nodedown, Target} -> ok after ?PATIENCE -> error(still_connected) end.

%% The processes of Target that monitor this one.
watchers(Target) ->
    {monitored_by, Pids} = process_info(self(), monitored_by),
    [Pid || Pid <- Pids, node(Pid) =:= Target].

%% Messages that came in whatever order, in that of what their second element may be.
of_each(Keys, Messages) -> [lists:keyfind(Key, 2, Messages) || Key <- Keys].

reasons() ->
    [{normal, normal}, {shutdown, shutdown}, {shutdown_tuple, {shutdown, [1]}}, {kill, kill},
     {killed, killed}, {noproc, noproc}, {custom, {my, <<"reason">>, #{2.5 => nil}}},
     {odd, {[a | b], <<5:3>>, "text", fun lists:map/2, -1 bsl 70, [], true}}, {nil, nil},
     {large, {large, binary:copy(<<"r">>, ?LARGE)}}].

each(What, Cases, Scene) ->
    [{{What, Case}, fun(Target) -> Scene(Target, Value) end} || {Case, Value} <- Cases].

%% Links

scenarios(links) ->
    each(exit_of_linked, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        see(link, link(Actor)),
        tell_to(Actor, {exit, Reason}),
        see(exit, next())
    end) ++
    each(exit_of_linked_to_child, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        Child = child(fun() -> link(Actor), ask(Actor, ping) end),
        Exit = fun() -> tell_to(Actor, {exit, Reason}) end,
        case Reason of
            normal ->
                see(actor, ended(Actor, Exit)),
                settle(Target),
                see(child, do(Child, fun() -> process_info(self(), links) end));
            _ -> see(child, ended(Child, Exit))
        end
    end) ++
    each(exit_of_child, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        Child = child(fun() -> link(Actor), ask(Actor, ping) end),
        case Reason of
            normal ->
                see(child, ended(Child, fun() -> Child ! {exit, normal} end)),
                see(actor, ask(Actor, ping));
            _ -> see(actor, ended(Actor, fun() -> Child ! {exit, Reason} end))
        end
    end) ++
    each(exit_of_child_trapped, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        Child = child(fun() -> link(Actor), ask(Actor, ping) end),
        Child ! {exit, Reason},
        see(actor, ask(Actor, {messages, 1})),
        see(links, ask(Actor, links))
    end) ++
    [{link_to_nobody, fun(Target) ->
        [begin
            see({Which, link}, caught(fun() -> link(Pid) end)),
            see({Which, exit}, next()),
            see({Which, unlink}, unlink(Pid)),
            see({Which, child}, end_of(fun() -> link(Pid), hang() end))
         end || {Which, Pid} <- nobodies(Target)]
     end},
     {link_from_there_to_nobody, fun(Target) ->
        Actor = actor(Target),
        Gone = gone(),
        ask(Actor, {trap_exit, true}),
        see(link, ask(Actor, {link, Gone})),
        see(exit, ask(Actor, {messages, 1})),
        ask(Actor, {trap_exit, false}),
        see(untrapped, ended(Actor, fun() -> tell_to(Actor, {link, Gone}) end))
     end},
     {link_twice, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        link(Actor),
        see(links, ask(Actor, links)),
        tell_to(Actor, {exit, once}),
        see(exit, next())
     end},
     {link_twice_unlink_once, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        link(Actor),
        see(unlink, unlink(Actor)),
        see(links, {ask(Actor, links), process_info(self(), links)}),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, later}) end))
     end},
     {linked_from_both_sides, fun(Target) ->
        Actor = actor(Target),
        see(theirs, ask(Actor, {link, self()})),
        link(Actor),
        see(links, {ask(Actor, links), process_info(self(), links)}),
        see(unlink, ask(Actor, {unlink, self()})),
        see(unlinked, {ask(Actor, links), process_info(self(), links)}),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, later}) end))
     end},
     {linked_from_there, fun(Target) ->
        Actor = actor(Target),
        see(link, ask(Actor, {link, self()})),
        see(links, {ask(Actor, links), process_info(self(), links)}),
        see(unlink, unlink(Actor)),
        see(unlinked, ask(Actor, links)),
        ask(Actor, {link, self()}),
        tell_to(Actor, {exit, again}),
        see(exit, next())
     end},
     {unlink_and_exit, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        unlink(Actor),
        see(links, ask(Actor, links)),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end)),
        see(unlink_again, unlink(Actor))
     end},
     {unlink_from_there, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        see(unlink, ask(Actor, {unlink, self()})),
        see(links, {ask(Actor, links), process_info(self(), links)}),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end))
     end},
     {unlink_without_link, fun(Target) ->
        Actor = actor(Target),
        see(ours, unlink(Actor)),
        see(theirs, ask(Actor, {unlink, self()}))
     end},
     {link_unlink_link, fun(Target) ->
        Actor = actor(Target),
        [begin link(Actor), unlink(Actor) end || _ <- lists:seq(1, 100)],
        link(Actor),
        see(links, ask(Actor, links)),
        tell_to(Actor, {all, [{unlink, self()}, {link, self()}, {exit, relinked}]}),
        see(exit, next())
     end},
     {link_without_connection, fun(Target) ->
        Actor = actor(Target),
        disconnect(Target),
        see(link, link(Actor)),
        tell_to(Actor, {exit, done}),
        see(exit, next())
     end},
     {link_from_there_without_connection, fun(Target) ->
        Actor = actor(Target),
        monitor_node(Target, true),
        tell_to(Actor, {all, [{leave, node()}, {link, self()}, {send, self(), linked}]}),
        see(messages, next(2)),
        tell_to(Actor, {exit, done}),
        see(exit, next())
     end},
     {links_and_lost_connection, fun(Target) ->
        [Trapper, Victim, Watcher] = [actor(Target) || _ <- "123"],
        ask(Trapper, {trap_exit, true}),
        Child = child(fun() -> link(Trapper), ask(Trapper, ping) end),
        ask(Watcher, {monitor, Victim}),
        [link(Pid) || Pid <- [Trapper, Victim]],
        [ask(Pid, ping) || Pid <- [Trapper, Victim]],
        Lost = ended(Child, fun() -> disconnect(Target) end),
        see(child, Lost),
        see(ours, of_each([Trapper, Victim], next(2))),
        see(trapper, of_each([Child, self()], ask(Trapper, {messages, 2}))),
        see(victim, ask(Watcher, {messages, 1})),
        see(links, ask(Trapper, links)),
        see(ended, ended(Trapper, fun() -> tell_to(Trapper, {exit, unseen}) end))
     end}];

%% Exit signals that are sent, with exit/2, also along a chain of links; no large reason ends one:
%% OTP 25.2.3 sends nothing more over a connection on which two processes that end have megabytes to
%% say at once

scenarios(signals) ->
    each(to_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        case Reason of
            normal -> see(exit, exit(Actor, Reason)), see(alive, ask(Actor, ping));
            _ -> see(ended, ended(Actor, fun() -> exit(Actor, Reason) end))
        end
    end) ++
    each(to_trapping_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        case Reason of
            kill -> see(ended, ended(Actor, fun() -> exit(Actor, Reason) end));
            _ -> exit(Actor, Reason), see(message, ask(Actor, {messages, 1}))
        end
    end) ++
    each(to_linked_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        link(Actor),
        exit(Actor, Reason),
        case Reason of
            normal -> see(links, ask(Actor, links));
            _ -> see(exit, next())
        end
    end) ++
    each(to_linked_trapping_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        link(Actor),
        exit(Actor, Reason),
        case Reason of
            kill -> see(exit, next());
            _ -> see(still, {ask(Actor, {messages, 1}), ask(Actor, links)})
        end
    end) ++
    each(from_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        Child = child(fun() -> ok end),
        case Reason of
            normal ->
                do(Child, fun() -> ask(Actor, {signal, Child, Reason}) end),
                see(alive, do(Child, fun() -> alive end));
            _ -> see(ended, ended(Child, fun() -> tell_to(Actor, {signal, Child, Reason}) end))
        end
    end) ++
    each(from_actor_trapped, lists:keydelete(kill, 1, reasons()), fun(Target, Reason) ->
        see(signal, ask(actor(Target), {signal, self(), Reason})),
        see(message, next())
    end) ++
    each(from_linked_actor_trapped, lists:keydelete(kill, 1, reasons()), fun(Target, Reason) ->
        Actor = actor(Target),
        link(Actor),
        see(signal, ask(Actor, {signal, self(), Reason})),
        see(message, next()),
        see(links, ask(Actor, links))
    end) ++
    each(to_itself, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {signal_self, Reason}) end))
    end) ++
    each(to_itself_trapped, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        case Reason of
            kill -> see(ended, ended(Actor, fun() -> tell_to(Actor, {signal_self, kill}) end));
            _ ->
                see(signal, ask(Actor, {signal_self, Reason})),
                see(message, ask(Actor, {messages, 1}))
        end
    end) ++
    each(along_links, lists:keydelete(large, 1, reasons()), fun(Target, Reason) ->
        [First, Second] = [actor(Target), actor(Target)],
        ask(Second, {link, First}),
        link(Second),
        ask(Second, ping),
        case Reason of
            normal -> exit(First, Reason), see(alive, [ask(Pid, ping) || Pid <- [First, Second]]);
            _ ->
                see(second, ended(Second, fun() -> exit(First, Reason) end)),
                see(exit, next())
        end
    end) ++
    each(along_trapped_links, reasons(), fun(Target, Reason) ->
        [First, Second] = [actor(Target), actor(Target)],
        ask(Second, {trap_exit, true}),
        ask(Second, {link, First}),
        tell_to(First, {exit, Reason}),
        see(second, ask(Second, {messages, 1})),
        see(links, ask(Second, links))
    end) ++
    [{to_nobody, fun(Target) ->
        [see(Which, exit(Pid, boom)) || {Which, Pid} <- nobodies(Target)],
        see(alive, ask(actor(Target), ping))
     end},
     {in_turn, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        [exit(Actor, N) || N <- lists:seq(1, 5)],
        see(messages, ask(Actor, {messages, 5})),
        [exit(Actor, N) || N <- lists:seq(6, 8)],
        see(ended, ended(Actor, fun() -> exit(Actor, kill) end))
     end}];

%% Monitors

scenarios(monitors) ->
    each(by_pid, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        see(monitor, monitor(process, Actor)),
        tell_to(Actor, {exit, Reason}),
        see(down, next())
    end) ++
    each(by_name, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        see(monitor, monitor(process, {?NAME, Target})),
        tell_to(Actor, {exit, Reason}),
        see(down, next()),
        see(again, monitor(process, {?NAME, Target})),
        see(noproc, next())
    end) ++
    each(from_actor, reasons(), fun(Target, Reason) ->
        Actor = actor(Target),
        Child = child(fun() -> register(?NAME, self()) end),
        Refs = [ask(Actor, {monitor, Of}) || Of <- [Child, {?NAME, node()}]],
        Child ! {exit, Reason},
        see(downs, of_each(Refs, ask(Actor, {messages, 2})))
    end) ++
    [{of_nobody, fun(Target) ->
        [begin
            see({Which, monitor}, monitor(process, Pid)),
            see({Which, down}, next())
         end || {Which, Pid} <- nobodies(Target) ++ no_names(Target)]
     end},
     {of_nobody_from_actor, fun(Target) ->
        Actor = actor(Target),
        Gone = gone(),
        see(pid, {ask(Actor, {monitor, Gone}), ask(Actor, {messages, 1})}),
        Name = {nosuch_name, node()},
        see(name, {ask(Actor, {monitor, Name}), ask(Actor, {messages, 1})})
     end},
     {several, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        Refs = [monitor(process, Of) || Of <- [Actor, Actor, {?NAME, Target}]],
        see(watchers, ask(Actor, watchers)),
        tell_to(Actor, {exit, done}),
        see(downs, of_each(Refs, next(3))),
        see(monitors, process_info(self(), monitors))
     end},
     {name_of_another, fun(Target) ->
        [First, Second] = [actor(Target), actor(Target)],
        ask(First, {register, ?NAME}),
        Ref = monitor(process, {?NAME, Target}),
        see(unregister, ask(First, {unregister, ?NAME})),
        see(register, ask(Second, {register, ?NAME})),
        tell_to(First, {exit, first}),
        see(down, {Ref, next()}),
        see(send, {?NAME, Target} ! hello),
        see(second, ask(Second, {messages, 1})),
        stop(Second)
     end},
     {demonitor, fun(Target) ->
        Actor = actor(Target),
        [begin
            Ref = monitor(process, Actor),
            see({Options, watched}, ask(Actor, watchers)),
            see({Options, demonitor}, demonitor(Ref, Options)),
            see({Options, watchers}, ask(Actor, watchers)),
            see({Options, again}, demonitor(Ref, Options))
         end || Options <- [[], [flush], [info], [flush, info]]],
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end))
     end},
     {demonitor_of_the_dead, fun(Target) ->
        [begin
            Actor = actor(Target),
            Ref = monitor(process, Actor),
            ended(Actor, fun() -> tell_to(Actor, {exit, seen}) end),
            settle(Target),
            see({Options, demonitor}, demonitor(Ref, Options)),
            see({Options, left}, flush())
         end || Options <- [[], [flush], [info], [flush, info]]]
     end},
     {demonitor_by_name, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        Ref = monitor(process, {?NAME, Target}),
        see(watched, ask(Actor, watchers)),
        see(unregister, ask(Actor, {unregister, ?NAME})),
        see(demonitor, demonitor(Ref, [info])),
        see(watchers, ask(Actor, watchers)),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end))
     end},
     {demonitor_from_actor, fun(Target) ->
        Actor = actor(Target),
        Ref = ask(Actor, {monitor, self()}),
        see(watched, watchers(Target)),
        see(demonitor, ask(Actor, {demonitor, Ref})),
        see(watchers, watchers(Target)),
        see(again, ask(Actor, {demonitor, Ref}))
     end},
     {watcher_ends, fun(Target) ->
        Actor = actor(Target),
        Child = child(fun() -> monitor(process, Actor), ask(Actor, ping) end),
        see(watchers, ask(Actor, watchers)),
        ended(Child, fun() -> Child ! {exit, enough} end),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end))
     end},
     {lost_connection, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        Refs = [monitor(process, Of) || Of <- [Actor, {?NAME, Target}]],
        ask(Actor, {monitor, self()}),
        disconnect(Target),
        see(downs, of_each(Refs, next(2))),
        see(theirs, ask(Actor, {messages, 1})),
        see(watchers, ask(Actor, watchers)),
        see(ended, ended(Actor, fun() -> tell_to(Actor, {exit, unseen}) end))
     end},
     {without_connection, fun(Target) ->
        Actor = actor(Target),
        disconnect(Target),
        Ref = monitor(process, Actor),
        tell_to(Actor, {exit, done}),
        see(down, {Ref, next()})
     end},
     {from_there_without_connection, fun(Target) ->
        Actor = actor(Target),
        Child = child(fun() -> ok end),
        monitor_node(Target, true),
        tell_to(Actor, {all, [{leave, node()}, {monitor, Child}, {send, self(), monitored}]}),
        see(messages, next(2)),
        Child ! {exit, done},
        see(down, ask(Actor, {messages, 1}))
     end},
     {tagged, fun(Target) ->
        Actor = actor(Target),
        monitor(process, Actor, [{tag, {my, tag}}]),
        tell_to(Actor, {exit, done}),
        see(down, next()),
        monitor(process, {nosuch_name, Target}, [{tag, gone}]),
        see(noproc, next())
     end},
     {linked_and_monitored, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        monitor(process, Actor),
        tell_to(Actor, {exit, done}),
        see(both, lists:sort(next(2)))
     end}];

%% Aliases

scenarios(aliases) ->
    [{ours, fun(Target) ->
        Actor = actor(Target),
        Alias = alias(),
        see(send, ask(Actor, {all, [{send, Alias, 1}, {send, Alias, 2}]})),
        see(received, next(2)),
        see(unalias, {unalias(Alias), unalias(Alias)}),
        see(late, ask(Actor, {send, Alias, 3}))
     end},
     {ours_for_a_reply, fun(Target) ->
        Actor = actor(Target),
        Alias = alias([reply]),
        see(send, ask(Actor, {all, [{send, Alias, {reply, 1}}, {send, Alias, {reply, 2}}]})),
        see(received, next()),
        see(unalias, unalias(Alias))
     end},
     {ours_over_lost_connection, fun(Target) ->
        Actor = actor(Target),
        Alias = alias(),
        disconnect(Target),
        see(send, ask(Actor, {send, Alias, 1})),
        see(received, next())
     end},
     {of_the_dead, fun(Target) ->
        Actor = actor(Target),
        Child = child(fun() -> ok end),
        Alias = do(Child, fun() -> alias() end),
        ended(Child, fun() -> Child ! {exit, done} end),
        see(send, ask(Actor, {send, Alias, 1}))
     end},
     {of_no_alias, fun(Target) -> see(send, ask(actor(Target), {send, make_ref(), 1})) end},
     {theirs, fun(Target) ->
        Actor = actor(Target),
        Alias = ask(Actor, alias),
        see(alias, Alias),
        see(send, {Alias ! 1, Alias ! 2}),
        see(received, ask(Actor, {messages, 2})),
        see(unalias, {ask(Actor, {unalias, Alias}), ask(Actor, {unalias, Alias})}),
        see(late, [Alias ! 3, Actor ! 4]),
        see(left_there, ask(Actor, {messages, 1}))
     end},
     {theirs_for_a_reply, fun(Target) ->
        Actor = actor(Target),
        Alias = ask(Actor, reply_alias),
        see(send, [Alias ! {reply, 1}, Alias ! {reply, 2}, Actor ! last]),
        see(received, ask(Actor, {messages, 2})),
        see(unalias, ask(Actor, {unalias, Alias}))
     end},
     {theirs_of_the_dead, fun(Target) ->
        Actor = actor(Target),
        Alias = ask(Actor, alias),
        ended(Actor, fun() -> exit(Actor, kill) end),
        see(send, Alias ! 1)
     end},
     {of_an_earlier_node, fun(Target) ->
        Actor = actor(Target),
        ended(Actor, fun() ->
            earlier(Target) ! 1,
            Actor ! {tell, {exit, done}}
        end),
        see(alive, ask(actor(Target), ping))
     end}] ++
    each(with_monitor_from_there,
         [{Kind, Kind} || Kind <- [explicit_unalias, demonitor, reply_demonitor]],
         fun(Target, Kind) ->
            Actor = actor(Target),
            Alias = ask(Actor, {monitor, self(), Kind}),
            [Alias ! {reply, N} || N <- [1, 2]],
            see(watchers, begin ask(Actor, ping), watchers(Target) end),
            see(demonitor, ask(Actor, {demonitor, Alias})),
            Alias ! {reply, 3},
            see(unalias, ask(Actor, {unalias, Alias})),
            see(late, [Alias ! {reply, 4}, Actor ! last]),
            Count = case Kind of explicit_unalias -> 4; demonitor -> 3; reply_demonitor -> 2 end,
            see(received, ask(Actor, {messages, Count}))
         end) ++
    each(with_monitor_from_there_that_is_down,
         [{Kind, Kind} || Kind <- [explicit_unalias, demonitor, reply_demonitor]],
         fun(Target, Kind) ->
            Actor = actor(Target),
            Child = child(fun() -> ok end),
            Alias = ask(Actor, {monitor, Child, Kind}),
            Child ! {exit, done},
            see(down, ask(Actor, {messages, 1})),
            see(late, [Alias ! late, Actor ! last]),
            Count = case Kind of explicit_unalias -> 2; _ -> 1 end,
            see(received, ask(Actor, {messages, Count})),
            see(unalias, ask(Actor, {unalias, Alias}))
         end) ++
    each(with_monitor, [{Kind, Kind} || Kind <- [explicit_unalias, demonitor, reply_demonitor]],
         fun with_monitor/2) ++
    each(with_monitor_that_is_down,
         [{Kind, Kind} || Kind <- [explicit_unalias, demonitor, reply_demonitor]],
         fun(Target, Kind) ->
            [Actor, Other] = [actor(Target), actor(Target)],
            Alias = monitor(process, Actor, [{alias, Kind}]),
            tell_to(Actor, {exit, done}),
            see(down, next()),
            see(send, ask(Other, {send, Alias, late})),
            see(received, flush()),
            see(unalias, unalias(Alias))
         end);

%% Calls of gen_servers

scenarios(calls) ->
    Terms = [{term, {a, [1, 2.5 | x], #{<<"k">> => nil}, true}}, {pid, self()},
             {large, binary:copy(<<"c">>, ?LARGE)}],
    each(echo, Terms, fun(Target, Term) ->
        Pid = server(Target),
        see(by_pid, gen_server:call(Pid, {echo, Term})),
        see(by_name, gen_server:call({?SERVER, Target}, {echo, Term})),
        see(for_ever, gen_server:call(Pid, {echo, Term}, infinity)),
        see(for_long, gen_server:call({?SERVER, Target}, {echo, Term}, ?PATIENCE)),
        stop(Pid)
    end) ++
    each(server_exits, reasons(), fun(Target, Reason) ->
        see(by_pid, failed_call(server(Target), {exit, Reason})),
        server(Target),
        see(by_name, failed_call({?SERVER, Target}, {exit, Reason}))
    end) ++
    each(server_stops, reasons(), fun(Target, Reason) ->
        Pid = server(Target),
        see(stop, failed_call(Pid, {stop, Reason})),
        see(reply_first, ended(server(Target), fun() ->
            see(reply, gen_server:call({?SERVER, Target}, {stop, Reason, last_words}))
        end))
    end) ++
    each(server_linked, reasons(), fun(Target, Reason) ->
        Pid = server(Target),
        link(Pid),
        see(call, failed_call(Pid, {exit, Reason})),
        see(exit, next())
    end) ++
    each(ends_by_cast_or_message, reasons(), fun(Target, Reason) ->
        First = server(Target),
        see(cast, ended(First, fun() -> gen_server:cast(First, {exit, Reason}) end)),
        Second = server(Target),
        see(message, ended(Second, fun() -> {?SERVER, Target} ! {exit, Reason} end))
    end) ++
    each(stop, reasons(), fun(Target, Reason) ->
        Pid = server(Target),
        see(ended, ended(Pid, fun() ->
            see(by_pid, caught(fun() -> gen_server:stop(Pid, Reason, ?PATIENCE) end))
        end)),
        server(Target),
        see(by_name, caught(fun() -> gen_server:stop({?SERVER, Target}, Reason, infinity) end)),
        Again = server(Target),
        see(proc_lib, caught(fun() -> proc_lib:stop(Again, Reason, ?PATIENCE) end)),
        see(gone, caught(fun() -> gen_server:stop(Again, Reason, ?PATIENCE) end))
    end) ++
    [{stop, fun(Target) ->
        see(by_pid, gen_server:stop(server(Target))),
        server(Target),
        see(by_name, gen_server:stop({?SERVER, Target})),
        see(proc_lib, proc_lib:stop(server(Target))),
        see(no_name, caught(fun() -> gen_server:stop({?SERVER, Target}) end)),
        [see(Which, caught(fun() -> gen_server:stop(Pid) end)) || {Which, Pid} <- nobodies(Target)]
     end},
     {nobody, fun(Target) ->
        [see(Which, failed_call(To, {echo, 1}))
         || {Which, To} <- nobodies(Target) ++ no_names(Target)]
     end},
     {time_out, fun(Target) ->
        Pid = server(Target),
        [begin
            see({Way, call}, caught(fun() -> gen_server:call(To, hold, ?BRIEFLY) end)),
            see({Way, late}, gen_server:call(Pid, {release, too_late})),
            see({Way, next}, gen_server:call(To, {echo, in_time})),
            see({Way, mailbox}, flush())
         end || {Way, To} <- [{by_pid, Pid}, {by_name, {?SERVER, Target}}]],
        stop(Pid)
     end},
     {at_once, fun(Target) ->
        Pid = server(Target),
        see(call, caught(fun() -> gen_server:call(Pid, hold, 0) end)),
        see(next, gen_server:call(Pid, {echo, 1})),
        stop(Pid)
     end},
     {caller_ends, fun(Target) ->
        Pid = server(Target),
        Caller = spawn(fun() -> gen_server:call(Pid, hold, infinity) end),
        see(caller, ended(Caller, fun() -> exit(Caller, kill) end)),
        see(next, gen_server:call(Pid, {echo, 1})),
        stop(Pid)
     end},
     {server_is_killed, fun(Target) ->
        Pid = server(Target),
        Actor = actor(Target),
        see(call, failed_call(Pid, {hand_over, Actor}, fun() ->
            ask(Actor, {messages, 1}),
            exit(Pid, kill)
        end))
     end},
     {lost_connection, fun(Target) ->
        [begin
            Pid = server(Target),
            Actor = actor(Target),
            To = case Way of by_pid -> Pid; by_name -> {?SERVER, Target} end,
            see({Way, call}, failed_call(To, {hand_over, Actor}, fun() ->
                ask(Actor, {messages, 1}),
                disconnect(Target)
            end)),
            see({Way, server}, gen_server:call(Pid, {echo, survived})),
            stop(Pid)
         end || Way <- [by_pid, by_name]]
     end},
     {reply_of_another, fun(Target) ->
        Pid = server(Target),
        Actor = actor(Target),
        Caller = child(fun() -> ok end),
        Parent = self(),
        Caller ! {do, Parent, fun() -> gen_server:call(Pid, {hand_over, Actor}) end},
        [{caller, From}] = ask(Actor, {messages, 1}),
        see(meanwhile, gen_server:call(Pid, {echo, 1})),
        see(reply, ask(Actor, {reply, From, from_another})),
        see(did, next()),
        stop(Pid)
     end},
     {reply_twice, fun(Target) ->
        Pid = server(Target),
        see(call, gen_server:call(Pid, {twice, first, second})),
        see(next, gen_server:call(Pid, {echo, third})),
        flush(), % whether the second comes in before the alias is gone is left to chance
        stop(Pid)
     end},
     {reply_from_here, fun(Target) ->
        Actor = actor(Target),
        Pid = server(Target),
        Request = gen_server:send_request(Pid, {hand_over, Actor}),
        [{caller, From}] = ask(Actor, {messages, 1}),
        see(reply, gen_server:reply(From, from_here)),
        see(response, gen_server:receive_response(Request, ?PATIENCE)),
        stop(Pid)
     end},
     {cast, fun(Target) ->
        Pid = server(Target),
        see(by_pid, gen_server:cast(Pid, {tell, self(), 1})),
        see(by_name, gen_server:cast({?SERVER, Target}, {tell, self(), 2})),
        see(abcast, gen_server:abcast([Target], ?SERVER, {tell, self(), 3})),
        see(message, {?SERVER, Target} ! {tell, self(), 4}),
        see(told, next(4)),
        [see(Which, gen_server:cast(Nobody, {tell, self(), 5}))
         || {Which, Nobody} <- nobodies(Target) ++ no_names(Target)],
        see(abcast_to_nobody, gen_server:abcast([Target], nosuch_name, {tell, self(), 6})),
        stop(Pid)
     end},
     {tags, fun(Target) ->
        Pid = server(Target),
        Ref = make_ref(),
        [begin
            To ! {'$gen_call', {self(), Tag}, {echo, Tag}},
            see(Tag, next()),
            Pid ! {system, {self(), Tag}, suspend},
            see(Tag, next()),
            Pid ! {system, {self(), Tag}, resume},
            see(Tag, next())
         end || Tag <- [Ref, tag, 1, [], nil, {Ref, node()}, [alias | alias()],
                        [[alias | alias()] | Ref], [alias | tag], [[alias | tag] | Ref]],
                To <- [Pid, {?SERVER, Target}]],
        [begin
            Pid ! {'$gen_call', {self(), Tag}, {echo, late}},
            see(Tag, gen_server:call(Pid, {echo, next}))
         end || Tag <- [[alias | make_ref()], [[alias | make_ref()] | Ref]]],
        stop(Pid)
     end},
     {without_connection, fun(Target) ->
        Pid = server(Target),
        disconnect(Target),
        see(by_pid, gen_server:call(Pid, {echo, 1})),
        disconnect(Target),
        see(by_name, gen_server:call({?SERVER, Target}, {echo, 2})),
        monitor_node(Target, true),
        Request = gen_server:send_request(Pid, hold),
        gen_server:cast(Pid, {leave_and_tell, node(), self(), back}),
        see(response, gen_server:receive_response(Request, ?PATIENCE)),
        see(messages, next(2)),
        stop(Pid)
     end},
     {trapping_server, fun(Target) ->
        Pid = server(Target),
        see(trap, gen_server:call(Pid, {trap_exit, true})),
        Child = child(fun() -> link(Pid), gen_server:call(Pid, {echo, 1}) end),
        Child ! {exit, done},
        exit(Pid, sent),
        see(kept, of_each([Child, self()], kept(Pid, 2))),
        see(stopped, ended(Pid, fun() -> gen_server:stop(Pid, shutdown, ?PATIENCE) end))
     end},
     {no_gen_server, fun(Target) ->
        Actor = actor(Target),
        see(call, caught(fun() -> gen_server:call(Actor, question, ?BRIEFLY) end)),
        see(got, ask(Actor, {messages, 1}))
     end}];

%% Requests whose responses are awaited later, and calls of many

scenarios(requests) ->
    [{response, fun(Target) ->
        Pid = server(Target),
        [begin
            Request = gen_server:send_request(To, {echo, Way}),
            see({Way, wait}, gen_server:wait_response(Request, ?PATIENCE)),
            Again = gen_server:send_request(To, {echo, Way}),
            see({Way, receive_}, gen_server:receive_response(Again, ?PATIENCE)),
            Checked = gen_server:send_request(To, {echo, Way}),
            see({Way, check}, gen_server:check_response(next(), Checked))
         end || {Way, To} <- [{by_pid, Pid}, {by_name, {?SERVER, Target}}]],
        stop(Pid)
     end},
     {no_response_yet, fun(Target) ->
        Pid = server(Target),
        Request = gen_server:send_request(Pid, hold),
        see(wait, gen_server:wait_response(Request, ?BRIEFLY)),
        see(other, gen_server:check_response(other, Request)),
        see(release, gen_server:call(Pid, {release, at_last})),
        see(response, gen_server:wait_response(Request, ?PATIENCE)),
        stop(Pid)
     end},
     {given_up, fun(Target) ->
        Pid = server(Target),
        Request = gen_server:send_request(Pid, hold),
        see(receive_, gen_server:receive_response(Request, ?BRIEFLY)),
        see(release, gen_server:call(Pid, {release, too_late})),
        stop(Pid)
     end},
     {failed, fun(Target) ->
        [begin
            Pid = server(Target),
            Request = gen_server:send_request(Pid, {exit, Reason}),
            see({Case, wait}, gen_server:wait_response(Request, ?PATIENCE)),
            Server = server(Target),
            Named = gen_server:send_request({?SERVER, Target}, {exit, Reason}),
            see({Case, check}, gen_server:check_response(next(), Named)),
            ended(Server, fun() -> ok end)
         end || {Case, Reason} <- reasons()]
     end},
     {nobody, fun(Target) ->
        [begin
            Request = gen_server:send_request(To, {echo, 1}),
            see(Which, gen_server:receive_response(Request, ?PATIENCE))
         end || {Which, To} <- nobodies(Target) ++ no_names(Target)]
     end},
     {lost_connection, fun(Target) ->
        Pid = server(Target),
        Request = gen_server:send_request(Pid, hold),
        gen_server:call(Pid, {echo, 1}),
        disconnect(Target),
        see(response, gen_server:receive_response(Request, ?PATIENCE)),
        see(late, gen_server:call(Pid, {release, too_late})),
        stop(Pid)
     end},
     {collection, fun(Target) ->
        Pid = server(Target),
        Requests = lists:foldl(fun(N, Collection) ->
            gen_server:send_request(Pid, {echo, N}, {label, N}, Collection)
        end, gen_server:reqids_new(), lists:seq(1, 3)),
        responses(gen_server:receive_response(Requests, ?PATIENCE, true)),
        stop(Pid)
     end},
     {multi_call, fun(Target) ->
        Pid = server(Target),
        see(all, gen_server:multi_call([Target], ?SERVER, {echo, 1})),
        see(in_time, gen_server:multi_call([Target], ?SERVER, {echo, 2}, ?PATIENCE)),
        see(nobody, gen_server:multi_call([Target], nosuch_name, {echo, 3})),
        see(too_late, gen_server:multi_call([Target], ?SERVER, hold, ?BRIEFLY)),
        see(release, gen_server:call(Pid, {release, too_late})),
        see(failed, gen_server:multi_call([Target], ?SERVER, {exit, done}))
     end}];

%% sys

scenarios(system) ->
    [{state, fun(Target) ->
        Pid = server(Target),
        see(new, sys:get_state(Pid)),
        gen_server:call(Pid, {set, {state, [<<"x">>]}}),
        see(by_name, sys:get_state({?SERVER, Target}, ?PATIENCE)),
        stop(Pid)
     end},
     {status, fun(Target) ->
        Pid = server(Target),
        gen_server:call(Pid, {set, my_state}),
        {status, Pid, Module, [Dictionary, Running, Parent, Debug, Misc]} = sys:get_status(Pid),
        see(running, {Module, is_list(Dictionary), Running, Parent =:= Pid, Debug}),
        see(misc, [Key || {Key, _} <- Misc]),
        see(data, [{Name, is_pid(Value) orelse Value}
                   || {data, Data} <- Misc, {Name, Value} <- Data]),
        sys:suspend(Pid),
        see(suspended, lists:nth(2, element(4, sys:get_status(Pid)))),
        stop(Pid)
     end},
     {suspended, fun(Target) ->
        Pid = server(Target),
        see(suspend, {sys:suspend(Pid), sys:suspend({?SERVER, Target})}),
        see(call, caught(fun() -> gen_server:call(Pid, {echo, 1}, ?BRIEFLY) end)),
        see(cast, gen_server:cast(Pid, {tell, self(), 2})),
        see(message, Pid ! {tell, self(), 3}),
        see(state, sys:get_state(Pid)),
        see(nothing, flush()),
        see(resume, {sys:resume(Pid), sys:resume(Pid)}),
        see(told, next(2)),
        see(next, gen_server:call(Pid, {echo, 4})),
        stop(Pid)
     end},
     {suspended_and_stopped, fun(Target) ->
        Pid = server(Target),
        sys:suspend(Pid),
        see(ended, ended(Pid, fun() -> see(stop, gen_server:stop(Pid)) end))
     end},
     {suspended_and_signalled, fun(Target) ->
        Pid = server(Target),
        sys:suspend(Pid),
        see(ended, ended(Pid, fun() -> exit(Pid, boom) end))
     end},
     {terminate, fun(Target) ->
        [begin
            Pid = server(Target),
            see({Case, ended}, ended(Pid, fun() ->
                see({Case, terminate}, sys:terminate(Pid, Reason))
            end))
         end || {Case, Reason} <- reasons()]
     end},
     {nobody, fun(Target) ->
        [begin
            see({Which, state}, caught(fun() -> sys:get_state(To, ?PATIENCE) end)),
            see({Which, suspend}, caught(fun() -> sys:suspend(To, ?PATIENCE) end))
         end || {Which, To} <- nobodies(Target) ++ no_names(Target)]
     end},
     {unknown, fun(Target) ->
        Pid = server(Target),
        Ref = make_ref(),
        Pid ! {system, {self(), Ref}, nonsense},
        see(answer, next()),
        stop(Pid)
     end}];

%% The order of signals, and messages to nobody

scenarios(order) ->
    [{messages_then_exit, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        tell_to(Actor, {all, [{count, self(), 1000}, {exit, done}]}),
        see(messages, next(1001))
     end},
     {messages_then_down, fun(Target) ->
        Actor = actor(Target),
        monitor(process, Actor),
        tell_to(Actor, {all, [{count, self(), 1000}, {exit, done}]}),
        see(messages, next(1001))
     end},
     {large_message_then_down, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        monitor(process, {?NAME, Target}),
        tell_to(Actor, {all, [{large, self(), ?LARGE}, {exit, done}]}),
        see(messages, next(2))
     end},
     {large_message_then_exit, fun(Target) ->
        Actor = actor(Target),
        link(Actor),
        tell_to(Actor, {all, [{large, self(), ?LARGE}, {send, self(), small}, {exit, done}]}),
        see(messages, next(3))
     end},
     {signal_then_message, fun(Target) ->
        Self = self(),
        Commands = [{signal, Self, 1}, {send, Self, 2}, {large, Self, ?LARGE}, {signal, Self, 3},
                    {send, Self, 4}],
        see(done, ask(actor(Target), {all, Commands})),
        see(messages, next(5))
     end},
     {pid_name_and_alias, fun(Target) ->
        Child = self(),
        register(?NAME, Child),
        Alias = alias(),
        Commands = [{send, To, N} || N <- lists:seq(1, 20), To <- [Child, {?NAME, node()}, Alias]],
        see(done, ask(actor(Target), {all, Commands})),
        see(messages, next(60)),
        unregister(?NAME)
     end},
     {to_pid_name_and_alias, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {register, ?NAME}),
        Alias = ask(Actor, alias),
        [To ! N || N <- lists:seq(1, 300), To <- [Actor, {?NAME, Target}, Alias]],
        see(messages, ask(Actor, {messages, 900}))
     end},
     {to_actor_large_and_small, fun(Target) ->
        Actor = actor(Target),
        [Actor ! {N, binary:copy(<<N>>, Size)}
         || {N, Size} <- lists:enumerate([1, ?LARGE, 2, 70000, 65536, 3])],
        see(messages, ask(Actor, {messages, 6}))
     end},
     {to_actor_message_then_exit, fun(Target) ->
        Actor = actor(Target),
        ask(Actor, {trap_exit, true}),
        Child = child(fun() -> link(Actor), [Actor ! N || N <- lists:seq(1, 100)] end),
        Child ! {exit, done},
        see(messages, ask(Actor, {messages, 101}))
     end},
     {to_nobody, fun(Target) ->
        [see(Which, To ! hello)
         || {Which, To} <- nobodies(Target) ++ no_names(Target)],
        see(send, [erlang:send(To, hello, [noconnect]) || To <- [{nosuch_name, Target}]]),
        see(nosuspend, erlang:send_nosuspend({nosuch_name, Target}, hello)),
        see(from_actor, ask(actor(Target), {send, {nosuch_name, node()}, hello})),
        see(alive, ask(actor(Target), ping))
     end},
     {group_leader, fun(Target) ->
        Actor = actor(Target),
        see(set, caught(fun() -> group_leader(group_leader(), Actor) end)),
        see(alive, ask(Actor, ping))
     end}];

%% Processes that are spawned there

scenarios(spawns) ->
    Functions = [{return, {return, [1]}}, {quit_normal, {quit, [normal]}}, {kill, {quit, [kill]}},
                 {custom, {quit, [{custom, 1}]}}, {undefined, {nosuch_function, [1, 2]}},
                 {too_many_arguments, {ping, [1]}}],
    each(ends, Functions, fun(Target, {Function, Args}) ->
        Spawn = [Target, transcript_peer, Function, Args],
        see(spawn, is_pid(apply(erlang, spawn, Spawn))),
        see(link, apply(erlang, spawn_link, Spawn)),
        see(exit, next()),
        see(monitor, apply(erlang, spawn_monitor, Spawn)),
        see(down, next()),
        see(opt, apply(erlang, spawn_opt, Spawn ++ [[link, {monitor, [{tag, gone}]}]])),
        see(both, lists:sort(next(2)))
    end) ++
    [{request, fun(Target) ->
        [begin
            Spawn = [Target, transcript_peer, return, [1], Options],
            see({Options, request}, apply(erlang, spawn_request, Spawn)),
            see({Options, messages}, lists:sort(next(Count)))
         end || {Options, Count} <- [{[], 1}, {[monitor], 2}, {[link], 2}, {[link, monitor], 3},
                                     {[monitor, {reply, no}], 1}, {[{reply_tag, tag}], 1},
                                     {[monitor, {reply, error_only}], 1}, {[no_option], 1}]]
     end},
     {live, fun(Target) ->
        {Pid, Ref} = spawn_monitor(Target, transcript_peer, hang, []),
        see(pid, {Pid, node(Pid) =:= Target}),
        link(Pid),
        Pid ! {go, home},
        see(ends, {Ref, lists:sort(next(2))}),
        Linked = spawn_link(Target, transcript_peer, hang, []),
        exit(Linked, stop),
        see(stopped, next()),
        Killed = spawn_link(Target, transcript_peer, hang, []),
        exit(Killed, kill),
        see(killed, next())
     end},
     {parent_ends, fun(Target) ->
        Child = child(fun() -> ok end),
        Pid = do(Child, fun() -> spawn_link(Target, transcript_peer, hang, []) end),
        see(ended, ended(Pid, fun() -> Child ! {exit, with_it} end))
     end},
     {erpc, fun(Target) ->
        [see({Function, Args}, caught(fun() ->
            erpc:call(Target, transcript_peer, Function, Args, ?PATIENCE)
         end)) || {Function, Args} <- [{return, [{1}]}, {toss, [ball]}, {quit, [early]},
                                       {quit, [normal]}, {nosuch_function, []}]],
        see(time_out, caught(fun() -> erpc:call(Target, transcript_peer, hang, [], ?BRIEFLY) end))
     end}];

%% Nodes

scenarios(nodes) ->
    [{monitors, fun(Target) ->
        ok = net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
        monitor_node(Target, true),
        see(disconnect, erlang:disconnect_node(Target)),
        see(down, lists:sort(next(2))),
        see(not_connected, lists:member(Target, nodes(connected))),
        see(ping, net_adm:ping(Target)),
        see(up, next()),
        see(connected, [lists:member(Target, nodes(Which)) || Which <- [connected, known]]),
        see(visible, {lists:member(Target, nodes()), lists:member(Target, nodes(hidden))}),
        ok = net_kernel:monitor_nodes(false, [{node_type, all}, nodedown_reason])
     end},
     {the_other_side_leaves, fun(Target) ->
        ok = net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
        monitor_node(Target, true),
        spawn(Target, transcript_peer, leave, [node()]),
        see(down, lists:sort(next(2))),
        see(connect, {net_kernel:connect_node(Target), net_kernel:connect_node(Target)}),
        see(up, next()),
        ok = net_kernel:monitor_nodes(false, [{node_type, all}, nodedown_reason])
     end},
     {information, fun(Target) ->
        see(ping, net_adm:ping(Target)),
        [see(Key, net_kernel:node_info(Target, Key)) || Key <- [state, type]]
     end},
     {monitored_twice, fun(Target) ->
        settle(Target),
        [monitor_node(Target, true) || _ <- "12"],
        monitor_node(Target, false),
        see(disconnect, erlang:disconnect_node(Target)),
        see(down, next()),
        see(again, erlang:disconnect_node(Target))
     end},
     {everything_is_lost, fun(Target) ->
        [Actor, Server] = [actor(Target), server(Target)],
        monitor_node(Target, true),
        link(Actor),
        Refs = [monitor(process, Of) || Of <- [Actor, {?SERVER, Target}]],
        Request = gen_server:send_request(Server, hold),
        ask(Actor, ping),
        gen_server:call(Server, {echo, 1}),
        true = erlang:disconnect_node(Target),
        see(response, gen_server:receive_response(Request, ?PATIENCE)),
        see(lost, of_each([Target, Actor | Refs], next(4))),
        see(server, gen_server:call(Server, {echo, survived})),
        stop(Server)
     end}].

with_monitor(Target, Kind) ->
    [Actor, Other] = [actor(Target), actor(Target)],
    Alias = monitor(process, Actor, [{alias, Kind}]),
    see(send, ask(Other, {all, [{send, Alias, {reply, 1}}, {send, Alias, {reply, 2}}]})),
    see(received, flush()),
    see(watchers, ask(Actor, watchers)),
    see(demonitor, demonitor(Alias, [info])),
    see(late, ask(Other, {send, Alias, {reply, 3}})),
    see(received, flush()),
    see(unalias, unalias(Alias)),
    see(later, ask(Other, {send, Alias, {reply, 4}})).

%% A call whose server ends: what the caller sees. The server is gone when this returns.
failed_call(To, Request) ->
    Ref = monitor(process, To),
    Caught = caught(fun() -> gen_server:call(To, Request, ?PATIENCE) end),
    receive {'DOWN', Ref, _, _, _} -> Caught after ?PATIENCE -> error(still_alive) end.

%% The same where Act makes the call fail, once it has arrived.
failed_call(To, Request, Act) ->
    Parent = self(),
    Caller = spawn_link(fun() ->
        Parent ! {caught, self(), caught(fun() -> gen_server:call(To, Request, ?PATIENCE) end)},
        unlink(Parent)
    end),
    Act(),
    receive {caught, Caller, Caught} -> Caught after 2 * ?PATIENCE -> error(no_end) end.

%% What a server has kept, once those are Count messages.
kept(Pid, Count) ->
    case gen_server:call(Pid, kept) of
        Kept when length(Kept) < Count -> kept(Pid, Count);
        Kept -> Kept
    end.

responses({Response, Label, Left}) ->
    see(Label, Response),
    responses(gen_server:receive_response(Left, ?PATIENCE, true));
responses(no_request) -> see(responses, all).

stop(Pid) -> ended(Pid, fun() -> exit(Pid, kill) end).

hang() -> receive never -> ok end.

%% What differs from run to run is replaced.

alike(Steps, Target) -> element(1, alike(Steps, Target, #{})).

alike(Term, Target, Names) when is_pid(Term); is_reference(Term) ->
    case Names of
        #{Term := Name} -> {Name, Names};
        #{} ->
            Kind = case is_pid(Term) of true -> pid; false -> ref end,
            Name = {Kind, alike_node(node(Term), Target), map_size(Names)},
            {Name, Names#{Term => Name}}
    end;
alike([Head | Tail], Target, Names) ->
    {NewHead, Names1} = alike(Head, Target, Names),
    {NewTail, Names2} = alike(Tail, Target, Names1),
    {[NewHead | NewTail], Names2};
alike(Tuple, Target, Names) when is_tuple(Tuple) ->
    {List, NewNames} = alike(tuple_to_list(Tuple), Target, Names),
    {list_to_tuple(List), NewNames};
alike(Binary, _, Names) when byte_size(Binary) > 100 ->
    {{binary, byte_size(Binary), erlang:crc32(Binary)}, Names};
alike(Atom, Target, Names) when is_atom(Atom) -> {alike_node(Atom, Target), Names};
alike(Term, _, Names) -> {Term, Names}.

alike_node(Target, Target) -> target;
alike_node(Atom, _) when Atom =:= node() -> client;
alike_node(Atom, _) -> Atom.
