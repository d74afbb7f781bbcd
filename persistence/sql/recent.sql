-- name: recent
-- How many were here, in an interview, and waiting, at each of $4 moments that lie $3 ms apart, the first at $2 (wall-clock
-- ms), as changes against the moment before; moments without one are left out. A session is looked for two days back. Who
-- is active and was seen in the last minute is still here. An interview that was taken over is one, and who ended without
-- an interview waited until last seen; who waits now is not known here.
with span as (
  select to_timestamp($2::bigint / 1e3::float8) as since,
         to_timestamp(($2::bigint + $3::bigint * $4::integer) / 1e3::float8) as until
),
sessions as materialized (
  select user_id, started_at, interview_started_at, interview_ended_at, waited_s,
         coalesce(completed_at, case when status = 'active' and last_seen > now() - interval '60 seconds'
                                     then until else last_seen end) as left_at,
         status
  from span
  cross join :"schema".presence
  where pool = $1 and started_at > since - interval '2 days' and started_at < until
),
interviews as (
  select interview_started_at as began, max(coalesce(interview_ended_at, left_at)) as ended, max(waited_s) as waited_s
  from sessions
  where interview_started_at is not null
  group by user_id, interview_started_at
),
times as (
  select 1 as online, 0 as in_interview, 0 as waiting, started_at as began, left_at as ended from sessions
  union all
  select 0, 1, 0, began, ended from interviews
  union all
  select 0, 0, 1, began - waited_s * interval '1 second', began from interviews where waited_s > 0
  union all
  select 0, 0, 1, left_at - waited_s * interval '1 second', left_at from sessions
  where interview_started_at is null and waited_s > 0 and status <> 'active'
),
changes as (
  select greatest(0, ceil(extract(epoch from began - since) * 1e3 / $3::bigint))::bigint as step,
         online, in_interview, waiting
  from times cross join span
  where ended > since and ended > began
  union all
  select ceil(extract(epoch from ended - since) * 1e3 / $3::bigint)::bigint, -online, -in_interview, -waiting
  from times cross join span
  where ended > since and ended > began
)
select step::integer, sum(online)::integer as online, sum(in_interview)::integer as in_interview,
       sum(waiting)::integer as waiting
from changes
where step < $4::integer
group by step
order by step;
