{application, beethoven,
 [{description, "A stand-in for Beethoven 0.3.9, for pybeethoven's tests and demo"},
  {vsn, "0.3.9"},
  {modules, []},
  {registered, []},
  {applications, [kernel, stdlib, elixir, mnesia]},
  {mod, {'Elixir.Beethoven.Application', []}}]}.
