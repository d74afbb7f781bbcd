-- Which migrations a schema has had. Runs in front of them each time, and changes nothing the second time.
-- The schema's name stands as psql writes it (:"schema"); persistence/statements.py puts it in.

do $$
begin
  if to_regnamespace(':"schema"') is null then
    create schema :"schema";
  end if;
end
$$;

create table if not exists :"schema".presence_migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);
