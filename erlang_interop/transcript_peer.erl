%% The processes of a BEAM that `transcript.erl` plays with.
%%
%% tests/interop/transcript_peer.py has the same in Python: whatever is added to one is added to the
%% other. There are two kinds.
%%
%%   an actor   a plain process that keeps what it is sent and does what it is told:
%%              {ask, From, Ref, Command} is answered {Ref, Result}, {tell, Command} is not
%%   a server   a gen_server; its state is what {set, Term} has made of it
%%
%% The other functions are there to be called, or spawned, from other nodes.
-module(transcript_peer).
-behaviour(gen_server).
-export([ping/0, start_actor/0, start_server/1, leave/1, return/1, toss/1, quit/1, hang/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

ping() -> pong.

start_actor() -> spawn(fun() -> act([]) end).

start_server(Name) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid.

leave(Node) -> erlang:disconnect_node(Node).

return(Term) -> Term.
toss(Term) -> throw(Term).
quit(Reason) -> exit(Reason).
hang() -> receive {go, Reason} -> exit(Reason) end.

%% The actor. `Seen` are the messages that are no commands, the latest first.

act(Seen) ->
    receive
        {ask, From, Ref, {messages, Count}} ->
            From ! {Ref, lists:reverse(collect(Count, Seen))},
            act([]);
        {ask, From, Ref, Command} ->
            From ! {Ref, obey(Command)},
            act(Seen);
        {tell, Command} ->
            obey(Command),
            act(Seen);
        Message ->
            act([Message | Seen])
    end.

collect(Count, Seen) when length(Seen) >= Count -> Seen;
collect(Count, Seen) -> receive Message -> collect(Count, [Message | Seen]) end.

obey(ping) -> pong;
obey({all, Commands}) -> [obey(Command) || Command <- Commands];
obey({exit, Reason}) -> exit(Reason);
obey({trap_exit, Flag}) -> process_flag(trap_exit, Flag);
obey({send, To, Message}) -> To ! Message, sent;
obey({count, To, Last}) -> [To ! N || N <- lists:seq(1, Last)], counted;
obey({large, To, Size}) -> To ! binary:copy(<<7>>, Size), sent;
obey({signal, To, Reason}) -> exit(To, Reason);
obey({signal_self, Reason}) -> exit(self(), Reason);
obey({link, Pid}) -> link(Pid);
obey({unlink, Pid}) -> unlink(Pid);
obey(links) -> {links, Links} = process_info(self(), links), lists:sort(Links);
obey({monitor, Target}) -> monitor(process, Target);
obey({monitor, Target, Kind}) -> monitor(process, Target, [{alias, Kind}]);
obey({demonitor, Ref}) -> demonitor(Ref);
obey(watchers) -> {monitored_by, Pids} = process_info(self(), monitored_by), lists:sort(Pids);
obey({register, Name}) -> register(Name, self());
obey({unregister, Name}) -> unregister(Name);
obey(alias) -> alias();
obey(reply_alias) -> alias([reply]);
obey({unalias, Alias}) -> unalias(Alias);
obey({leave, Node}) -> leave(Node);
obey({reply, From, Reply}) -> gen_server:reply(From, Reply), replied.

%% The server.

init([]) -> {ok, new}.

handle_call({echo, Term}, _From, State) -> {reply, Term, State};
handle_call({set, Term}, _From, _State) -> {reply, ok, Term};
handle_call({exit, Reason}, _From, _State) -> exit(Reason);
handle_call({stop, Reason}, _From, State) -> {stop, Reason, State};
handle_call({stop, Reason, Reply}, _From, State) -> {stop, Reason, Reply, State};
handle_call(hold, From, State) ->
    put(held, From),
    {noreply, State};
handle_call({release, Reply}, _From, State) ->
    gen_server:reply(get(held), Reply),
    {reply, released, State};
handle_call({hand_over, Actor}, From, State) ->
    Actor ! {caller, From},
    {noreply, State};
handle_call({trap_exit, Flag}, _From, State) ->
    put(kept, []),
    {reply, process_flag(trap_exit, Flag), State};
handle_call(kept, _From, State) -> {reply, get(kept), State};
handle_call({twice, First, Second}, From, State) ->
    gen_server:reply(From, First),
    {reply, Second, State}.

handle_cast(Message, State) -> handle_info(Message, State).

handle_info({tell, To, Message}, State) -> To ! Message, {noreply, State};
handle_info({exit, Reason}, _State) -> exit(Reason);
handle_info({leave_and_tell, Node, To, Message}, State) ->
    leave(Node),
    To ! Message,
    {noreply, State};
handle_info(Message, State) -> put(kept, [Message | get(kept)]), {noreply, State}.
