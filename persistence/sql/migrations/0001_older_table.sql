-- A table named presence that is not ours stays as it is: nobody's rows are guessed at.
-- Runs first, so that what must happen to an older table happens before the tables are made.

do $$
declare
  found regclass := to_regclass(':"schema".presence');
  lacking text;
begin
  if found is null then
    return;
  end if;
  select string_agg(needed, ', ') into lacking
  from unnest(array['pool', 'version', 'metadata']) as needed
  where not exists (
    select from pg_attribute where attrelid = found and attname = needed and not attisdropped
  );
  if lacking is not null then
    raise exception 'The schema % already has a table presence that is not this program''s (it lacks: %); nothing was changed.',
      :'schema', lacking
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename that table.';
  end if;
end
$$;
