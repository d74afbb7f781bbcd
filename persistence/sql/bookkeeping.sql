-- Which migrations a schema has had. Runs in front of them each time, and changes nothing the second time.
-- The schema's name stands as psql writes it (:"schema"); persistence/statements.py puts it in.

do $$
begin
  if to_regnamespace(':"schema"') is null then
    create schema :"schema";
  end if;
  if to_regclass(':"schema".presence_migrations') is not null and not exists (
    select from pg_attribute
    where attrelid = to_regclass(':"schema".presence_migrations') and attname = 'name' and not attisdropped
  ) then
    raise exception 'The schema % has something else under the name presence_migrations; nothing was changed.', :'schema'
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename it.';
  end if;
end
$$;

create table if not exists :"schema".presence_migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);
