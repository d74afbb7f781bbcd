-- Tables, views and function of a new database. Every statement may run twice. Rights are not here: lockdown.sql
-- runs behind all migrations and closes what any of them made.

-- Ids compare bytewise on every server, so that a listing goes on in Postgres where it stopped in Redis.
-- The free space lets the frequent writes of last_seen stay on their page and touch no index.
create table if not exists :"schema".presence (
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

create table if not exists :"schema".presence_pools (
  pool text primary key,
  "limit" integer not null,
  mode text not null,
  flushed_at timestamptz not null default now()
);

-- None of these holds last_seen: an index on it would make each of its writes a write of every index.
create index if not exists idx_presence_active_interviews
  on :"schema".presence (pool) where status = 'active' and is_in_interview;
create index if not exists idx_presence_active
  on :"schema".presence (session_id) where status = 'active';
create index if not exists idx_presence_newest
  on :"schema".presence (pool, started_at desc, session_id desc);
create index if not exists idx_presence_user
  on :"schema".presence (user_id);

create or replace view :"schema".active_sessions_view with (security_invoker = on) as
select session_id, user_id, language_code, current_page, last_seen, started_at, is_in_interview,
       pool, interview_started_at, waited_s, metadata
from :"schema".presence
where status = 'active' and last_seen > now() - interval '5 minutes'
order by last_seen desc;

-- A pool whose limit was never flushed shows up too while somebody is in an interview: no limit is known then.
create or replace view :"schema".interview_capacity with (security_invoker = on) as
select coalesce(pools.pool, running.pool) as pool,
       pools."limit" as max_concurrent,
       coalesce(running.interviews, 0) as active_interviews,
       case when pools."limit" is not null
            then greatest(0, pools."limit" - coalesce(running.interviews, 0)) end as available
from :"schema".presence_pools as pools
full join (
  select pool, count(*)::integer as interviews
  from :"schema".presence
  where status = 'active' and is_in_interview and last_seen > now() - interval '60 seconds'
  group by pool
) as running on running.pool = pools.pool;

-- For the SQL editor and pg_cron. A session that is live after all is active again after its next flush.
create or replace function :"schema".cleanup_stale_sessions(hours double precision default 3)
returns integer
language sql
set search_path = ''
as $$
  with abandoned as (
    update :"schema".presence
    set status = 'abandoned',
        end_reason = 'cleanup',
        interview_ended_at = case when is_in_interview then last_seen else interview_ended_at end,
        is_in_interview = false
    where status = 'active' and last_seen < now() - greatest(hours, 0) * interval '1 hour'
    returning 1
  )
  select count(*)::integer from abandoned
$$;
