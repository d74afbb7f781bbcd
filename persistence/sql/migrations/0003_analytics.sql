-- What the team asks its history: views without the ids of sessions, and the marks of those who were forgotten.
-- A day begins at midnight UTC. Times that end in _s are seconds.

-- What a flush had taken before its person was forgotten must not be written afterwards. A mark says up to which
-- version, and is deleted when no flush can be that late any more.
create table if not exists :"schema".presence_forgotten (
  session_id text collate "C" primary key,
  version bigint not null,
  forgotten_at timestamptz not null default now()
);

-- The days of a pool, in the words of the views: a question about some of them reads no others.
create index if not exists idx_presence_day
  on :"schema".presence (pool, ((started_at at time zone 'UTC')::date));

-- One row a session, with what the other views count and measure. An interview that another session of the same person
-- took over stands in both their rows, with the same user_id and interview_started_at.
create or replace view :"schema".presence_facts with (security_invoker = on) as
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
from :"schema".presence;

create or replace view :"schema".presence_languages with (security_invoker = on) as
select pool, language_code, day,
       count(*) as sessions,
       count(distinct (user_id, coalesce(interview_started_at, started_at))) filter (where interviewed) as interviews,
       count(*) filter (where status = 'completed') as completed
from :"schema".presence_facts
group by pool, language_code, day;

create or replace view :"schema".presence_durations with (security_invoker = on) as
select pool, language_code, day,
       count(interview_s) as interviews,
       percentile_cont(0.5) within group (order by interview_s) as interview_median_s,
       percentile_cont(0.9) within group (order by interview_s) as interview_p90_s,
       count(session_s) as completed,
       percentile_cont(0.5) within group (order by session_s) as session_median_s,
       percentile_cont(0.9) within group (order by session_s) as session_p90_s
from :"schema".presence_facts
group by pool, language_code, day;

-- How long those waited who got in; who got in at once has waited 0 seconds. And who left the line and never got in.
create or replace view :"schema".presence_waits with (security_invoker = on) as
select pool, language_code, day,
       count(waited_s) as admitted,
       count(*) filter (where waited_s >= 1) as waited,
       percentile_cont(0.5) within group (order by waited_s) as median_s,
       percentile_cont(0.9) within group (order by waited_s) as p90_s,
       max(waited_s) as longest_s,
       count(gave_up_s) as gave_up,
       percentile_cont(0.5) within group (order by gave_up_s) as gave_up_median_s
from :"schema".presence_facts
group by pool, language_code, day;

create or replace view :"schema".presence_endings with (security_invoker = on) as
select pool, language_code, day, end_reason, count(*) as sessions
from :"schema".presence_facts
where end_reason is not null
group by pool, language_code, day, end_reason;

create or replace view :"schema".presence_peak_hours with (security_invoker = on) as
select pool, day, date_trunc('hour', started_at, 'UTC') as hour, count(*) as sessions,
       count(*) filter (where interviewed) as interviews
from :"schema".presence_facts
group by pool, day, date_trunc('hour', started_at, 'UTC');

-- How many interviews ran at the same time, in each hour in which any did: the most, and on average. An interview starts
-- at most two days after its session. One that was taken over is one; one whose end nobody noted ran until it was seen
-- last; one that runs now has no end yet.
create or replace function :"schema".presence_concurrency_between(of_pool text, since timestamptz, until timestamptz)
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
    from :"schema".presence
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
create or replace view :"schema".presence_concurrency with (security_invoker = on) as
with recursive pools as (
  select min(pool) as pool from :"schema".presence
  union all
  select (select min(pool) from :"schema".presence where pool > pools.pool) from pools where pools.pool is not null
)
select pools.pool, running.hour, running.most, running.average
from pools
cross join lateral :"schema".presence_concurrency_between(pools.pool, now() - interval '31 days', now()) as running
where pools.pool is not null;
