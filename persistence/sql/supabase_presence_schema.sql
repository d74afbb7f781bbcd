-- interview-presence: all of the database, to paste into an SQL editor. It does what `presence migrate` does,
-- and is what `presence migrate --print` prints. Running it again changes nothing.

begin;

set local statement_timeout = 0;
set local lock_timeout = '5s';
select pg_advisory_xact_lock(hashtextextended('interview-presence migrate', 0));

-- Which migrations a schema has had. Runs in front of them each time, and changes nothing the second time.
-- The schema's name stands as psql writes it (public); persistence/statements.py puts it in.

do $$
begin
  if to_regnamespace('public') is null then
    create schema public;
  end if;
  if to_regclass('public.presence_migrations') is not null and not exists (
    select from pg_attribute
    where attrelid = to_regclass('public.presence_migrations') and attname = 'name' and not attisdropped
  ) then
    raise exception 'The schema % has something else under the name presence_migrations; nothing was changed.', 'public'
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename it.';
  end if;
end
$$;

create table if not exists public.presence_migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);

-- 0001_older_table
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
  older regclass := to_regclass('public.presence');
  kind "char";
  taken text;
begin
  perform set_config('presence.older', 'no', true);
  if exists (select from public.presence_migrations where name = '0001_older_table') then
    return;
  end if;
  select string_agg(relname, ', ') into taken
  from pg_class
  where relnamespace = to_regnamespace('public')
    and (relname in ('active_sessions_view', 'interview_capacity') and relkind not in ('v', 'm')
      or relname = 'presence_pools' and 4 <> (
        select count(*) from pg_attribute
        where attrelid = pg_class.oid and attname in ('pool', 'limit', 'mode', 'flushed_at') and relkind = 'r'
      ));
  if taken is not null then
    raise exception 'The schema % has something else under names that this program needs (%); nothing was changed.',
      'public', taken
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
      'public'
      using hint = 'Set PRESENCE_SCHEMA to another schema, or rename it.';
  end if;
  if not (select pg_has_role(relowner, 'usage') from pg_class where oid = older) then
    raise exception 'The table presence belongs to %, and % may not change it; nothing was changed.',
      (select pg_get_userbyid(relowner) from pg_class where oid = older), current_user
      using hint = 'Migrate as its owner.';
  end if;
  execute 'lock table public.presence in access exclusive mode';
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
    from public.presence
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
    where attrelid = to_regclass('public.presence') and attname = 'status' and not attisdropped
  ) then
    select string_agg(format('%L in %s row(s)', value, rows), ', ' order by value) into trouble
    from (
      select status::text as value, count(*) as rows
      from public.presence
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
  where key.conrelid = to_regclass('public.presence')
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
    where attrelid = to_regclass('public.presence') and attname = wanted and not attisdropped
  );
  select string_agg(attname, ', ' order by attnum) into extra
  from pg_attribute
  where attrelid = to_regclass('public.presence') and attnum > 0 and not attisdropped
    and attname <> all (ours)
    and attname <> all (array[
      'pool', 'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason', 'metadata', 'version'
    ]);
  select string_agg(tgname, ', ') into running
  from pg_trigger
  where tgrelid = to_regclass('public.presence') and not tgisinternal;
  raise notice using errcode = 'PRSNC', message = format(
    'found an older table presence: %s row(s), %s',
    (select count(*) from public.presence),
    concat_ws(
      '; ',
      'session_id of type ' || (
        select format_type(atttypid, atttypmod) from pg_attribute
        where attrelid = to_regclass('public.presence') and attname = 'session_id' and not attisdropped
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
  older constant regclass := to_regclass('public.presence');
  name text;
  step text;
  detail text;
begin
  if current_setting('presence.older') <> 'yes' then
    return;
  end if;
  for name, step in
    select format('policy %I (%s to %s)', policyname, cmd, array_to_string(roles, ', ')),
           format('drop policy %I on public.presence', policyname)
    from pg_policies
    where schemaname = 'public' and tablename = 'presence'
      and roles && array['public', 'anon', 'authenticated']::name[]
    union all
    select 'view ' || relname || ' (made anew)',
           format('drop %s public.%I', case relkind when 'm' then 'materialized view' else 'view' end, relname)
    from pg_class
    where relnamespace = to_regnamespace('public')
      and relname in ('active_sessions_view', 'interview_capacity')
    union all
    select 'function ' || oid::regprocedure || ' (made anew)', 'drop routine ' || oid::regprocedure
    from pg_proc
    where pronamespace = to_regnamespace('public') and proname = 'cleanup_stale_sessions'
    union all
    select 'index ' || relname || ' (made anew)', format('drop index public.%I', relname)
    from pg_class
    where relnamespace = to_regnamespace('public') and relkind = 'i'
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
  older constant regclass := to_regclass('public.presence');
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
           format('alter table public.presence drop constraint %I', conname)
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
  older constant regclass := to_regclass('public.presence');
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
      execute format('alter table public.presence add column %I %s', wanted.name, wanted.type)
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
      execute format('alter table public.presence alter column %I drop identity', wanted.name);
    elsif now_is.atthasdef then
      execute format('alter table public.presence alter column %I drop default', wanted.name);
    end if;

    empty := 0;
    if wanted.fill is not null and not now_is.attnotnull then
      execute format('select count(*) from public.presence where %I is null', wanted.name) into empty;
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
          'alter table public.presence alter column %I type %s %s using %s',
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
      execute format('alter table public.presence alter column %I set default %s', wanted.name, wanted."default");
    end if;
    if wanted.fill is not null and not now_is.attnotnull then
      execute format('alter table public.presence alter column %I set not null', wanted.name);
    end if;
    if wanted.fill is null and now_is.attnotnull and not exists (
      select from pg_constraint
      where conrelid = older and contype = 'p'
        and (select attnum from pg_attribute where attrelid = older and attname = wanted.name) = any (conkey)
    ) then
      execute format('alter table public.presence alter column %I drop not null', wanted.name);
    end if;
  end loop;
end
$$;

-- One row a session; extra columns stay empty in rows of this program; the rest as in a new table.
do $$
declare
  older constant regclass := to_regclass('public.presence');
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
      alter table public.presence add unique (session_id);
      raise notice using errcode = 'PRSNC', message = 'makes session_id unique, and keeps the primary key';
    else
      alter table public.presence add primary key (session_id);
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
    execute 'alter table public.presence alter column ' || extra || ' drop not null';
    raise notice using errcode = 'PRSNC', message = 'lets the extra column ' || extra || ' be empty';
  end loop;

  alter table public.presence
    add constraint presence_status_check check (status in ('active', 'completed', 'abandoned'));
  alter table public.presence set (fillfactor = 80);
  -- The server may connect as the owner, for whom there is no policy.
  alter table public.presence no force row level security;
  if (select relpersistence = 'u' from pg_class where oid = older) then
    alter table public.presence set logged;
  end if;
end
$$;

insert into public.presence_migrations (name) values ('0001_older_table') on conflict (name) do nothing;

-- 0002_presence
-- Tables, views and function of a new database. Every statement may run twice. Rights are not here: lockdown.sql
-- runs behind all migrations and closes what any of them made.

-- Ids compare bytewise on every server, so that a listing goes on in Postgres where it stopped in Redis.
-- The free space lets the frequent writes of last_seen stay on their page and touch no index.
create table if not exists public.presence (
  session_id text collate "C" primary key,
  user_id text not null,
  language_code text,
  current_page text,
  last_seen timestamptz not null default now(),
  started_at timestamptz not null default now(),
  completed_at timestamptz,
  is_in_interview boolean not null default false,
  status text not null default 'active',
  pool text not null default 'main',
  interview_started_at timestamptz,
  interview_ended_at timestamptz,
  waited_s double precision,
  end_reason text,
  metadata jsonb not null default '{}',
  version bigint not null default 0,
  constraint presence_status_check check (status in ('active', 'completed', 'abandoned'))
) with (fillfactor = 80);

create table if not exists public.presence_pools (
  pool text primary key,
  "limit" integer not null,
  mode text not null,
  flushed_at timestamptz not null default now()
);

-- None of these holds last_seen: an index on it would make each of its writes a write of every index.
create index if not exists idx_presence_active_interviews
  on public.presence (pool) where status = 'active' and is_in_interview;
create index if not exists idx_presence_active
  on public.presence (session_id) where status = 'active';
create index if not exists idx_presence_newest
  on public.presence (pool, started_at desc, session_id desc);
create index if not exists idx_presence_user
  on public.presence (user_id);

create or replace view public.active_sessions_view with (security_invoker = on) as
select session_id, user_id, language_code, current_page, last_seen, started_at, is_in_interview,
       pool, interview_started_at, waited_s, metadata
from public.presence
where status = 'active' and last_seen > now() - interval '5 minutes'
order by last_seen desc;

-- A pool whose limit was never flushed shows up too while somebody is in an interview: no limit is known then.
create or replace view public.interview_capacity with (security_invoker = on) as
select coalesce(pools.pool, running.pool) as pool,
       pools."limit" as max_concurrent,
       coalesce(running.interviews, 0) as active_interviews,
       case when pools."limit" is not null
            then greatest(0, pools."limit" - coalesce(running.interviews, 0)) end as available
from public.presence_pools as pools
full join (
  select pool, count(*)::integer as interviews
  from public.presence
  where status = 'active' and is_in_interview and last_seen > now() - interval '60 seconds'
  group by pool
) as running on running.pool = pools.pool;

-- For the SQL editor and pg_cron. A session that is live after all is active again after its next flush.
create or replace function public.cleanup_stale_sessions(hours double precision default 3)
returns integer
language sql
set search_path = ''
as $$
  with abandoned as (
    update public.presence
    set status = 'abandoned',
        end_reason = 'cleanup',
        interview_ended_at = case when is_in_interview then last_seen else interview_ended_at end,
        is_in_interview = false
    where status = 'active' and last_seen < now() - greatest(hours, 0) * interval '1 hour'
    returning 1
  )
  select count(*)::integer from abandoned
$$;

insert into public.presence_migrations (name) values ('0002_presence') on conflict (name) do nothing;

-- 0003_analytics
-- What the team asks its history: views without the ids of sessions, and the marks of those who were forgotten.
-- A day begins at midnight UTC. Times that end in _s are seconds.

-- What a flush had taken before its person was forgotten must not be written afterwards. A mark says up to which
-- version, and is deleted when no flush can be that late any more.
create table if not exists public.presence_forgotten (
  session_id text collate "C" primary key,
  version bigint not null,
  forgotten_at timestamptz not null default now()
);

-- The days of a pool, in the words of the views: a question about some of them reads no others.
create index if not exists idx_presence_day
  on public.presence (pool, ((started_at at time zone 'UTC')::date));

-- One row a session, with what the other views count and measure. An interview that another session of the same person
-- took over stands in both their rows, with the same user_id and interview_started_at.
create or replace view public.presence_facts with (security_invoker = on) as
select pool, language_code, (started_at at time zone 'UTC')::date as day, user_id, status, started_at,
       interview_started_at,
       interview_started_at is not null or is_in_interview as interviewed,
       case when interview_ended_at >= interview_started_at
            then extract(epoch from interview_ended_at - interview_started_at)::float8 end as interview_s,
       case when status = 'completed' and completed_at >= started_at
            then extract(epoch from completed_at - started_at)::float8 end as session_s,
       case when interview_started_at is not null then waited_s end as waited_s,
       case when status <> 'active' then coalesce(end_reason, status) end as end_reason,
       case when interview_started_at is null and status <> 'active' and waited_s > 0 then waited_s end as gave_up_s
from public.presence;

create or replace view public.presence_languages with (security_invoker = on) as
select pool, language_code, day,
       count(*) as sessions,
       count(distinct (user_id, coalesce(interview_started_at, started_at))) filter (where interviewed) as interviews,
       count(*) filter (where status = 'completed') as completed
from public.presence_facts
group by pool, language_code, day;

create or replace view public.presence_durations with (security_invoker = on) as
select pool, language_code, day,
       count(interview_s) as interviews,
       percentile_cont(0.5) within group (order by interview_s) as interview_median_s,
       percentile_cont(0.9) within group (order by interview_s) as interview_p90_s,
       count(session_s) as completed,
       percentile_cont(0.5) within group (order by session_s) as session_median_s,
       percentile_cont(0.9) within group (order by session_s) as session_p90_s
from public.presence_facts
group by pool, language_code, day;

-- How long those waited who got in; who got in at once has waited 0 seconds. And who left the line and never got in.
create or replace view public.presence_waits with (security_invoker = on) as
select pool, language_code, day,
       count(waited_s) as admitted,
       count(*) filter (where waited_s >= 1) as waited,
       percentile_cont(0.5) within group (order by waited_s) as median_s,
       percentile_cont(0.9) within group (order by waited_s) as p90_s,
       max(waited_s) as longest_s,
       count(gave_up_s) as gave_up,
       percentile_cont(0.5) within group (order by gave_up_s) as gave_up_median_s
from public.presence_facts
group by pool, language_code, day;

create or replace view public.presence_endings with (security_invoker = on) as
select pool, language_code, day, end_reason, count(*) as sessions
from public.presence_facts
where end_reason is not null
group by pool, language_code, day, end_reason;

create or replace view public.presence_peak_hours with (security_invoker = on) as
select pool, day, date_trunc('hour', started_at, 'UTC') as hour, count(*) as sessions,
       count(*) filter (where interviewed) as interviews
from public.presence_facts
group by pool, day, date_trunc('hour', started_at, 'UTC');

-- How many interviews ran at the same time, in each hour in which any did: the most, and on average. An interview starts
-- at most two days after its session. One that was taken over is one; one whose end nobody noted ran until it was seen
-- last; one that runs now has no end yet.
create or replace function public.presence_concurrency_between(of_pool text, since timestamptz, until timestamptz)
returns table (hour timestamptz, most bigint, average double precision)
language sql
stable
set search_path = ''
as $$
  with interviews as (
    select greatest(interview_started_at, since) as began,
           least(max(case when interview_ended_at is not null then interview_ended_at
                          when is_in_interview and status = 'active' then until
                          else last_seen end), until) as ended
    from public.presence
    where pool = of_pool
      and started_at > since - interval '2 days' and started_at < until
      and interview_started_at < until
    group by user_id, interview_started_at
  ),
  steps as (
    select began as at, 1 as step from interviews where ended > began
    union all
    select ended, -1 from interviews where ended > began
  ),
  levels as (
    select at, sum(sum(step)) over (order by at) as running, lead(at) over (order by at) as up_to
    from steps
    group by at
  )
  select hours.hour,
         max(running)::bigint,
         sum(running * extract(epoch from least(up_to, hours.hour + interval '1 hour') - greatest(at, hours.hour))
            )::float8 / 3600
  from levels
  cross join lateral generate_series(date_trunc('hour', at, 'UTC'), up_to - interval '1 microsecond', interval '1 hour')
    as hours (hour)
  where running > 0
  group by hours.hour
$$;

-- The last 31 days; the function above answers for others.
create or replace view public.presence_concurrency with (security_invoker = on) as
with recursive pools as (
  select min(pool) as pool from public.presence
  union all
  select (select min(pool) from public.presence where pool > pools.pool) from pools where pools.pool is not null
)
select pools.pool, running.hour, running.most, running.average
from pools
cross join lateral public.presence_concurrency_between(pools.pool, now() - interval '31 days', now()) as running
where pools.pool is not null;

insert into public.presence_migrations (name) values ('0003_analytics') on conflict (name) do nothing;

-- lockdown
-- Who may do what. Runs behind the migrations each time, whatever they made: a table, view, sequence or function that
-- a later migration makes is closed in the same transaction, whatever default privileges gave away with it, and what
-- somebody opened since is closed again. A migration only has to make its views with security_invoker = on.
--
--   owner             all; row level security is not forced on it, so that the server may also connect as the owner
--   presence_server   what the server does: read all; write presence, presence_pools and presence_forgotten;
--                     delete from presence (retention, and forgetting a person); run cleanup_stale_sessions
--   anon, authenticated, everybody else   nothing: no grant, no policy. Roles that were given something by name, and
--                     service_role, which Supabase gives all and lets pass row level security, are left as they are
--
-- presence_server can't log in until the operator says so (its password must never stand in a file):
--   alter role presence_server with login password '…';
--   alter role presence_server with nologin;   -- to take it back

-- The role, if we may make one. Roles belong to all databases of a server: another migration may be making it now.
do $$
begin
  if to_regrole('presence_server') is not null then
    return;
  end if;
  if exists (select from pg_roles where rolname = current_user and (rolsuper or rolcreaterole)) then
    create role presence_server nologin;
    raise notice using errcode = 'PRSNC', message = 'makes the role presence_server, which can''t log in yet';
  else
    raise notice using errcode = 'PRSNC', message =
      current_user || ' may not make the role presence_server: the server must connect as the owner of its tables';
  end if;
exception when duplicate_object or unique_violation then
  null;
end
$$;

-- Policies that let in whoever has the public key go; those for other roles alone stay.
do $$
declare
  hole record;
begin
  for hole in
    select policyname, tablename, cmd, array_to_string(roles, ', ') as roles
    from pg_policies
    where schemaname = 'public'
      and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
      and roles && array['public', 'anon', 'authenticated']::name[]
      and (policyname <> 'presence_closed' or to_regrole('presence_server') is not null)
  loop
    execute format('drop policy %I on public.%I', hole.policyname, hole.tablename);
    raise notice using errcode = 'PRSNC', message =
      format('drops the policy %I on %s (%s to %s)', hole.policyname, hole.tablename, hole.cmd, hole.roles);
  end loop;
end
$$;

-- Row level security, with a policy for the server's role alone; where there is no such role, one that lets nobody in.
do $$
declare
  locked text;
begin
  foreach locked in array array['presence', 'presence_pools', 'presence_forgotten', 'presence_migrations'] loop
    if not (select relrowsecurity from pg_class where oid = format('public.%I', locked)::regclass) then
      execute format('alter table public.%I enable row level security', locked);
      raise notice using errcode = 'PRSNC', message = 'turns on row level security of ' || locked;
    end if;
    if exists (
      select from pg_policies
      where schemaname = 'public' and tablename = locked
        and policyname = case when to_regrole('presence_server') is null then 'presence_closed' else 'presence_server' end
    ) then
      continue;
    end if;
    execute case
      when to_regrole('presence_server') is null then
        format('create policy presence_closed on public.%I using (false)', locked)
      when locked = 'presence_migrations' then
        format('create policy presence_server on public.%I for select to presence_server using (true)', locked)
      else
        format('create policy presence_server on public.%I to presence_server using (true) with check (true)', locked)
    end;
  end loop;
end
$$;

-- Grants to everybody and to Supabase's API roles: on the tables, on every view over them (also one of the team's
-- own, which would show the rows past row level security), on the sequences of their columns, on the functions.
do $$
declare
  given record;
begin
  for given in
    with recursive ours (id) as (
      select oid from pg_class
      where relnamespace = to_regnamespace('public')
        and relname in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
      union
      select rule.ev_class
      from ours
      join pg_depend as need
        on need.refclassid = 'pg_class'::regclass and need.refobjid = ours.id and need.classid = 'pg_rewrite'::regclass
      join pg_rewrite as rule on rule.oid = need.objid
    ),
    things (what, owner, acl) as (
      select case relkind when 'S' then 'sequence ' else 'table ' end || pg_class.oid::regclass, relowner, relacl
      from pg_class
      where pg_class.oid in (select id from ours)
        or relkind = 'S' and pg_class.oid in (
          select objid from pg_depend
          where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass
            and refobjid in (select id from ours) and deptype in ('a', 'i')
        )
      union all
      -- Grants on single columns. Revoking all on the table takes them too.
      select 'table ' || attrelid::regclass, relowner, attacl
      from pg_attribute join pg_class on pg_class.oid = attrelid
      where attrelid in (select id from ours) and attacl is not null
      union all
      select 'routine ' || pg_proc.oid::regprocedure, proowner, coalesce(proacl, acldefault('f', proowner))
      from pg_proc
      where pronamespace = to_regnamespace('public')
        and (proname = 'cleanup_stale_sessions' or proname like 'presence\_%')
    )
    select what, case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as grantee,
           string_agg(distinct privilege_type, ', ') as privileges
    from things, aclexplode(acl)
    where pg_has_role(owner, 'usage')
      and (grantee = 0 or pg_get_userbyid(grantee) in ('anon', 'authenticated'))
    group by 1, 2
  loop
    execute format('revoke all on %s from %s cascade', given.what, given.grantee);
    raise notice using errcode = 'PRSNC', message =
      format('revokes %s on %s from %s', given.privileges, given.what, given.grantee);
  end loop;
end
$$;

-- What the server's role needs. A sequence behind a column of an older table is needed to insert a row.
do $$
declare
  needed text;
begin
  if to_regrole('presence_server') is null then
    return;
  end if;
  if not has_schema_privilege('presence_server', to_regnamespace('public'), 'usage') then
    grant usage on schema public to presence_server;
  end if;
  grant select, insert, update, delete on public.presence to presence_server;
  grant select, insert, update on public.presence_pools to presence_server;
  grant select, insert, update, delete on public.presence_forgotten to presence_server;
  grant select on public.presence_migrations to presence_server;
  for needed in
    with recursive views (id) as (
      select 'public.presence'::regclass::oid
      union
      select 'public.presence_pools'::regclass::oid
      union
      select rule.ev_class
      from views
      join pg_depend as need
        on need.refclassid = 'pg_class'::regclass and need.refobjid = views.id and need.classid = 'pg_rewrite'::regclass
      join pg_rewrite as rule on rule.oid = need.objid
    )
    -- With the rights of who asks, these show nothing that the role could not read from the tables.
    select 'select on ' || oid::regclass
    from pg_class
    where relkind = 'v' and oid in (select id from views) and pg_has_role(relowner, 'usage')
      and reloptions && array['security_invoker=on', 'security_invoker=true']
    union all
    select 'usage on sequence ' || pg_class.oid::regclass
    from pg_depend join pg_class on pg_class.oid = objid
    where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass
      and refobjid = 'public.presence'::regclass and deptype in ('a', 'i') and relkind = 'S'
    union all
    select 'execute on routine ' || oid::regprocedure
    from pg_proc
    where pronamespace = to_regnamespace('public')
      and (proname = 'cleanup_stale_sessions' or proname like 'presence\_%')
      and pg_has_role(proowner, 'usage') and not prosecdef
  loop
    execute format('grant %s to presence_server', needed);
  end loop;
end
$$;

-- Supabase Realtime must not broadcast the rows.
do $$
declare
  published record;
begin
  for published in
    select puballtables, schemaname, tablename
    from pg_publication_tables join pg_publication using (pubname)
    where pubname = 'supabase_realtime' and schemaname = 'public'
      and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
  loop
    if exists (
      select from pg_publication_rel join pg_publication on pg_publication.oid = prpubid
      where pubname = 'supabase_realtime' and prrelid = format('public.%I', published.tablename)::regclass
    ) then
      execute format('alter publication supabase_realtime drop table public.%I', published.tablename);
      raise notice using errcode = 'PRSNC', message =
        format('takes %s out of the publication supabase_realtime', published.tablename);
    else
      raise notice using errcode = 'PRSNC', message = format(
        'the publication supabase_realtime has all tables, %s too: list the tables it shall have', published.tablename
      );
    end if;
  end loop;
end
$$;

commit;
