-- Takes over the table presence of the system before this one, in place and without losing a row.
-- Runs first, and does nothing where there is no such table or where this step was recorded before.
--
-- What it finds may differ: session_id as text, uuid or number, with or without a key, an id column of its own;
-- columns that are missing (added), of another type (converted; a time without a zone is taken as UTC) or extra
-- (kept); NULLs (filled); old views, function and index under our names (made anew by the next step); rules that
-- rows of this program could break, such as one session a user (dropped, and said). Where only a human can tell
-- what is right, it raises one sentence, and since everything runs in one transaction nothing has changed.
--
-- Locks: from the first look to the commit nobody else reads or writes the table: a few scans, one rewrite for each
-- column that changes its type or has NULLs to fill (not for varchar and timestamps), and the indexes of the next
-- steps; all in all about ten seconds for a million rows on two cores. `lock_timeout` (set in front) bounds how long it
-- waits for its turn, and others behind it; the application may go on meanwhile, and waits.
--
-- What it does and finds it says as notices with the code PRSNC, which `presence migrate` shows.

-- Is there an older table, and is it one?
do $$
declare
  older regclass := to_regclass(':"schema".presence');
  kind "char";
  taken text;
begin
  perform set_config('presence.older', 'no', true);
  if exists (select from :"schema".presence_migrations where name = '0001_older_table') then
    return;
  end if;
  select string_agg(relname, ', ') into taken
  from pg_class
  where relnamespace = to_regnamespace(':"schema"')
    and (relname in ('active_sessions_view', 'interview_capacity') and relkind not in ('v', 'm')
      or relname = 'presence_pools' and 4 <> (
        select count(*) from pg_attribute
        where attrelid = pg_class.oid and attname in ('pool', 'limit', 'mode', 'flushed_at') and relkind = 'r'
      ));
  if taken is not null then
    raise exception 'The schema % has something else under names that this program needs (%); nothing was changed.',
      :'schema', taken
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename it.';
  end if;
  if older is null then
    return;
  end if;
  select relkind into kind from pg_class where oid = older;
  if kind <> 'r'
    or not exists (select from pg_attribute where attrelid = older and attname = 'session_id' and not attisdropped)
    or not exists (
      select from pg_attribute where attrelid = older and attname in ('last_seen', 'started_at') and not attisdropped
    )
  then
    raise exception 'The schema % has something else under the name presence (a table of sessions has session_id, and last_seen or started_at); nothing was changed.',
      :'schema'
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename it.';
  end if;
  if not (select pg_has_role(relowner, 'usage') from pg_class where oid = older) then
    raise exception 'The table presence belongs to %, and % may not change it; nothing was changed.',
      (select pg_get_userbyid(relowner) from pg_class where oid = older), current_user
      using hint = 'Migrate as its owner.';
  end if;
  execute 'lock table :"schema".presence in access exclusive mode';
  perform set_config('presence.older', 'yes', true);
  -- Times without a zone were written by servers that ran in UTC. It also spares the rewrite of such a column.
  perform set_config('timezone', 'UTC', true);
end
$$;

-- What a human must decide.
do $$
declare
  trouble text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;

  select format('%s session_id(s) stand in more than one row (%L in %s of them)', count(*), min(id), max(rows) filter (where nth = 1))
  into trouble
  from (
    select session_id::text as id, count(*) as rows, row_number() over (order by session_id::text) as nth
    from :"schema".presence
    where session_id is not null
    group by session_id::text
    having count(*) > 1
  ) as doubled
  having count(*) > 0;
  if trouble is not null then
    raise exception 'In the table presence %; nothing was changed.', trouble
      using hint = 'Decide which row of each to keep, delete the others, and migrate again.';
  end if;

  if exists (
    select from pg_attribute
    where attrelid = to_regclass(':"schema".presence') and attname = 'status' and not attisdropped
  ) then
    select string_agg(format('%L in %s row(s)', value, rows), ', ' order by value) into trouble
    from (
      select status::text as value, count(*) as rows
      from :"schema".presence
      where status::text not in ('active', 'completed', 'abandoned')
      group by status::text
    ) as strange;
    if trouble is not null then
      raise exception 'In the table presence status is neither active, completed nor abandoned: %; nothing was changed.', trouble
        using hint = 'Set each to one of the three, and migrate again.';
    end if;
  end if;

  select string_agg(quote_ident(attname), ', ') into trouble
  from pg_constraint as key
  join pg_attribute as part on part.attrelid = key.conrelid and part.attnum = any (key.conkey)
  where key.conrelid = to_regclass(':"schema".presence')
    and key.contype = 'p'
    and not part.atthasdef
    and part.attidentity = ''
    and part.attname <> all (array[
      'session_id', 'user_id', 'language_code', 'current_page', 'last_seen', 'started_at', 'completed_at',
      'is_in_interview', 'status', 'pool', 'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason',
      'metadata', 'version'
    ]);
  if trouble is not null then
    raise exception 'The primary key of the table presence needs a value for % that this program does not know, and has no default; nothing was changed.',
      trouble
      using hint = 'Give that column a default, or make session_id the primary key, and migrate again.';
  end if;
end
$$;

-- What was found, for the report.
do $$
declare
  ours constant text[] := array[
    'session_id', 'user_id', 'language_code', 'current_page', 'last_seen', 'started_at', 'completed_at',
    'is_in_interview', 'status'
  ];
  missing text;
  extra text;
  running text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;
  select string_agg(wanted, ', ') into missing
  from unnest(ours) as wanted
  where not exists (
    select from pg_attribute
    where attrelid = to_regclass(':"schema".presence') and attname = wanted and not attisdropped
  );
  select string_agg(attname, ', ' order by attnum) into extra
  from pg_attribute
  where attrelid = to_regclass(':"schema".presence') and attnum > 0 and not attisdropped
    and attname <> all (ours)
    and attname <> all (array[
      'pool', 'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason', 'metadata', 'version'
    ]);
  select string_agg(tgname, ', ') into running
  from pg_trigger
  where tgrelid = to_regclass(':"schema".presence') and not tgisinternal;
  raise notice using errcode = 'PRSNC', message = format(
    'found an older table presence: %s row(s), %s',
    (select count(*) from :"schema".presence),
    concat_ws(
      '; ',
      'session_id of type ' || (
        select format_type(atttypid, atttypmod) from pg_attribute
        where attrelid = to_regclass(':"schema".presence') and attname = 'session_id' and not attisdropped
      ),
      'missing: ' || missing,
      'extra columns, kept: ' || extra,
      'triggers, kept, which will run at each write of the server: ' || running
    )
  );
end
$$;

-- Out of the way: open policies, and what stands under our names. Policies for other roles alone stay.
do $$
declare
  older constant regclass := to_regclass(':"schema".presence');
  name text;
  step text;
  detail text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;
  for name, step in
    select format('policy %I (%s to %s)', policyname, cmd, array_to_string(roles, ', ')),
           format('drop policy %I on :"schema".presence', policyname)
    from pg_policies
    where schemaname = :'schema' and tablename = 'presence'
      and roles && array['public', 'anon', 'authenticated']::name[]
    union all
    select 'view ' || relname || ' (made anew)',
           format('drop %s :"schema".%I', case relkind when 'm' then 'materialized view' else 'view' end, relname)
    from pg_class
    where relnamespace = to_regnamespace(':"schema"')
      and relname in ('active_sessions_view', 'interview_capacity')
    union all
    select 'function ' || oid::regprocedure || ' (made anew)', 'drop routine ' || oid::regprocedure
    from pg_proc
    where pronamespace = to_regnamespace(':"schema"') and proname = 'cleanup_stale_sessions'
    union all
    select 'index ' || relname || ' (made anew)', format('drop index :"schema".%I', relname)
    from pg_class
    where relnamespace = to_regnamespace(':"schema"') and relkind = 'i'
      and relname in (
        'idx_presence_active_interviews', 'idx_presence_active', 'idx_presence_newest', 'idx_presence_user'
      )
  loop
    begin
      execute step;
    exception when others then
      get stacked diagnostics detail = pg_exception_detail;
      raise exception 'The old % can''t be dropped: %; nothing was changed.', name, concat_ws(': ', sqlerrm, nullif(rtrim(detail, '.'), ''))
        using hint = 'Drop what needs it, and migrate again.';
    end;
    raise notice using errcode = 'PRSNC', message = 'drops the ' || name;
  end loop;
end
$$;

-- Rules of the old system about our columns that rows of this program need not keep. Those about extra columns stay.
do $$
declare
  older constant regclass := to_regclass(':"schema".presence');
  key smallint;
  ours smallint[];
  name text;
  step text;
  detail text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;
  select array_agg(attnum), min(attnum) filter (where attname = 'session_id') into ours, key
  from pg_attribute
  where attrelid = older and not attisdropped
    and attname in (
      'session_id', 'user_id', 'language_code', 'current_page', 'last_seen', 'started_at', 'completed_at',
      'is_in_interview', 'status', 'pool', 'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason',
      'metadata', 'version'
    );
  for name, step in
    select format('constraint %I: %s', conname, pg_get_constraintdef(oid)),
           format('alter table :"schema".presence drop constraint %I', conname)
    from pg_constraint
    where conrelid = older
      and conkey <@ ours
      -- A key that is checked late is none to an upsert.
      and (contype in ('c', 'f', 'x') or contype in ('p', 'u') and (condeferrable or not key = any (conkey)))
    union all
    select pg_get_indexdef(indexrelid), 'drop index ' || indexrelid::regclass
    from pg_index
    where indrelid = older
      and indisunique
      and not exists (select from pg_constraint where conindid = indexrelid)
      and indkey::smallint[] <@ (ours || 0::smallint)
      and not key = any (indkey::smallint[])
  loop
    begin
      execute step;
    exception when others then
      get stacked diagnostics detail = pg_exception_detail;
      raise exception 'A rule of the old table can''t be dropped (%): %; nothing was changed.',
        name, concat_ws(': ', sqlerrm, nullif(rtrim(detail, '.'), ''))
        using hint = 'Drop what needs it, and migrate again.';
    end;
    raise notice using errcode = 'PRSNC', message = 'drops the ' || name;
  end loop;
end
$$;

-- The columns: those that are missing, then type, NULLs, default and NOT NULL of each.
-- NULLs are filled by a change of type, for an UPDATE would run the table's triggers.
do $$
declare
  older constant regclass := to_regclass(':"schema".presence');
  spec jsonb := '[
    {"name": "session_id", "type": "text", "fill": "''no-id-'' || gen_random_uuid()"},
    {"name": "user_id", "type": "text", "fill": "''unknown''"},
    {"name": "language_code", "type": "text"},
    {"name": "current_page", "type": "text"},
    {"name": "last_seen", "type": "timestamp with time zone", "default": "now()",
     "fill": "coalesce(completed_at::timestamptz, started_at::timestamptz, ''epoch'')"},
    {"name": "started_at", "type": "timestamp with time zone", "default": "now()",
     "fill": "least(last_seen, completed_at::timestamptz)"},
    {"name": "completed_at", "type": "timestamp with time zone"},
    {"name": "is_in_interview", "type": "boolean", "default": "false", "fill": "false"},
    {"name": "status", "type": "text", "default": "''active''",
     "fill": "case when completed_at is null then ''active'' else ''completed'' end"},
    {"name": "pool", "type": "text", "default": "''main''", "fill": "''main''"},
    {"name": "interview_started_at", "type": "timestamp with time zone"},
    {"name": "interview_ended_at", "type": "timestamp with time zone"},
    {"name": "waited_s", "type": "double precision"},
    {"name": "end_reason", "type": "text"},
    {"name": "metadata", "type": "jsonb", "default": "''{}''", "fill": "''{}''"},
    {"name": "version", "type": "bigint", "default": "0", "fill": "0"}
  ]';
  wanted record;
  now_is record;
  empty bigint;
  cast_to text;
  added text[] := '{}';
  detail text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;

  for wanted in select * from jsonb_to_recordset(spec) as (name text, type text, "default" text, fill text) loop
    if not exists (select from pg_attribute where attrelid = older and attname = wanted.name and not attisdropped) then
      execute format('alter table :"schema".presence add column %I %s', wanted.name, wanted.type)
        -- A constant for all old rows costs nothing; other fills follow below.
        || case when wanted.fill = wanted."default" then ' default ' || wanted.fill else '' end;
      added := added || wanted.name;
    end if;
  end loop;
  if added <> '{}' then
    raise notice using errcode = 'PRSNC', message = 'adds the columns ' || array_to_string(added, ', ');
  end if;

  for wanted in select * from jsonb_to_recordset(spec) as (name text, type text, "default" text, fill text) loop
    select format_type(atttypid, atttypmod) as type, attnotnull, attgenerated, attidentity, atthasdef,
           typcategory, attcollation
    into now_is
    from pg_attribute join pg_type on pg_type.oid = atttypid
    where attrelid = older and attname = wanted.name and not attisdropped;
    if now_is.attgenerated <> '' then
      raise exception 'The column % of the table presence is computed, and this program must write it; nothing was changed.',
        wanted.name
        using hint = 'Make it a plain column (alter column … drop expression), and migrate again.';
    end if;
    if now_is.attidentity <> '' then
      execute format('alter table :"schema".presence alter column %I drop identity', wanted.name);
    elsif now_is.atthasdef then
      execute format('alter table :"schema".presence alter column %I drop default', wanted.name);
    end if;

    empty := 0;
    if wanted.fill is not null and not now_is.attnotnull then
      execute format('select count(*) from :"schema".presence where %I is null', wanted.name) into empty;
    end if;
    if now_is.type <> wanted.type or empty > 0
      or wanted.name = 'session_id' and now_is.attcollation <> 'pg_catalog."C"'::regcollation
    then
      cast_to := case
        when wanted.type = 'boolean' and now_is.typcategory = 'N' then format('%I <> 0', wanted.name)
        else format('%I::%s', wanted.name, wanted.type)
      end;
      begin
        execute format(
          'alter table :"schema".presence alter column %I type %s %s using %s',
          wanted.name,
          wanted.type,
          case when wanted.name = 'session_id' then 'collate pg_catalog."C"' end,
          case when empty > 0 then format('coalesce(%s, %s)', cast_to, wanted.fill) else cast_to end
        );
      exception when others then
        get stacked diagnostics detail = pg_exception_detail;
        detail := concat_ws(': ', sqlerrm, nullif(rtrim(detail, '.'), ''));
        if now_is.type <> wanted.type or empty > 0 then
          raise exception 'The column % of the table presence can''t be turned from % into %: %; nothing was changed.',
            wanted.name, now_is.type, wanted.type, detail
            using hint = 'Convert its values or drop what needs the column as it is, and migrate again.';
        end if;
        -- Only listings care, and they only for sessions that began in the same instant.
        raise notice using errcode = 'PRSNC', message = 'leaves session_id its collation: ' || detail;
      end;
      if now_is.type <> wanted.type then
        raise notice using errcode = 'PRSNC', message = format(
          'turns the column %s from %s into %s%s', wanted.name, now_is.type, wanted.type,
          case when now_is.type like 'timestamp%without%' then ' (its times are taken as UTC)' else '' end
        );
      end if;
      if empty > 0 then
        raise notice using errcode = 'PRSNC', message = format(
          'fills %s row(s) without %s with %s', empty, wanted.name, wanted.fill
        );
      end if;
    end if;

    if wanted."default" is not null then
      execute format('alter table :"schema".presence alter column %I set default %s', wanted.name, wanted."default");
    end if;
    if wanted.fill is not null and not now_is.attnotnull then
      execute format('alter table :"schema".presence alter column %I set not null', wanted.name);
    end if;
    if wanted.fill is null and now_is.attnotnull and not exists (
      select from pg_constraint
      where conrelid = older and contype = 'p'
        and (select attnum from pg_attribute where attrelid = older and attname = wanted.name) = any (conkey)
    ) then
      execute format('alter table :"schema".presence alter column %I drop not null', wanted.name);
    end if;
  end loop;
end
$$;

-- One row a session; extra columns stay empty in rows of this program; the rest as in a new table.
do $$
declare
  older constant regclass := to_regclass(':"schema".presence');
  extra text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;
  if not exists (
    select from pg_index
    where indrelid = older and indisunique and indimmediate and indisvalid and indpred is null
      and indnkeyatts = 1
      and indkey[0] = (select attnum from pg_attribute where attrelid = older and attname = 'session_id')
  ) then
    if exists (select from pg_constraint where conrelid = older and contype = 'p') then
      alter table :"schema".presence add unique (session_id);
      raise notice using errcode = 'PRSNC', message = 'makes session_id unique, and keeps the primary key';
    else
      alter table :"schema".presence add primary key (session_id);
      raise notice using errcode = 'PRSNC', message = 'makes session_id the primary key';
    end if;
  end if;

  for extra in
    select quote_ident(attname) from pg_attribute
    where attrelid = older and attnum > 0 and not attisdropped
      and attnotnull and not atthasdef and attidentity = ''
      and attname <> all (array[
        'session_id', 'user_id', 'last_seen', 'started_at', 'is_in_interview', 'status', 'pool', 'metadata', 'version'
      ])
      and not exists (select from pg_constraint where conrelid = older and contype = 'p' and attnum = any (conkey))
  loop
    execute 'alter table :"schema".presence alter column ' || extra || ' drop not null';
    raise notice using errcode = 'PRSNC', message = 'lets the extra column ' || extra || ' be empty';
  end loop;

  alter table :"schema".presence
    add constraint presence_status_check check (status in ('active', 'completed', 'abandoned'));
  alter table :"schema".presence set (fillfactor = 80);
  -- The server may connect as the owner, for whom there is no policy.
  alter table :"schema".presence no force row level security;
  if (select relpersistence = 'u' from pg_class where oid = older) then
    alter table :"schema".presence set logged;
  end if;
end
$$;
