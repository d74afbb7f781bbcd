-- What `presence plan` reads, each under its name. $1 is the pool, $2 the number of days.
-- Sessions start no later than their interviews, and at most two days earlier: so the index on started_at serves.

-- name: plan_span
-- Now, and when the pool's history begins, in seconds of Unix time.
select extract(epoch from now())::float8 as now, extract(epoch from min(started_at))::float8 as first
from :"schema".presence
where pool = $1;

-- name: plan_interviews
-- Who got in: since when they had asked, how long they had waited, how long it took (null while it runs). An interview
-- that another session of the same user took over is one interview. At most $3 of them, the newest.
select extract(epoch from interview_started_at)::float8 - coalesce(max(waited_s), 0) as arrived_at,
       coalesce(max(waited_s), 0) as waited_s,
       case when bool_and(interview_ended_at is not null)
            then greatest(0, extract(epoch from max(interview_ended_at) - interview_started_at))::float8
       end as length_s
from :"schema".presence
where pool = $1
  and started_at > now() - ($2::integer + 2) * interval '1 day'
  and interview_started_at > now() - $2::integer * interval '1 day'
group by user_id, interview_started_at
order by interview_started_at desc
limit $3;

-- name: plan_given_up
-- Who waited and never got in.
select extract(epoch from last_seen)::float8 - waited_s as arrived_at, waited_s
from :"schema".presence
where pool = $1
  and started_at > now() - $2::integer * interval '1 day'
  and status <> 'active'
  and interview_started_at is null
  and waited_s > 0
limit $3;
