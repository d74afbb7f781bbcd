-- What the analytics routes ask the views, each statement under its name. $1 is the pool, $2 how many days back, today
-- (UTC) included. The measures of many days come from their sessions: a median of medians would be none.

-- name: languages
select language_code, sum(sessions)::bigint as sessions, sum(interviews)::bigint as interviews,
       sum(completed)::bigint as completed
from :"schema".presence_languages
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
group by language_code
order by sessions desc, language_code;

-- name: language_days
select language_code, day::text as day, sessions, interviews, completed
from :"schema".presence_languages
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
order by day, language_code;

-- name: durations
-- Also of all languages together: there `total` is true.
select language_code, grouping(language_code) = 1 as total,
       count(interview_s) as interviews,
       avg(interview_s) as interview_mean_s,
       percentile_cont(0.5) within group (order by interview_s) as interview_median_s,
       percentile_cont(0.9) within group (order by interview_s) as interview_p90_s,
       max(interview_s) as interview_longest_s,
       count(session_s) as completed,
       avg(session_s) as session_mean_s,
       percentile_cont(0.5) within group (order by session_s) as session_median_s,
       percentile_cont(0.9) within group (order by session_s) as session_p90_s,
       max(session_s) as session_longest_s
from :"schema".presence_facts
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
group by grouping sets ((language_code), ())
order by total desc, language_code;

-- name: peak_hours
select (extract(epoch from hour) * 1000)::bigint as hour_ms, sessions, interviews
from :"schema".presence_peak_hours
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
order by hour desc;

-- name: concurrency
select (extract(epoch from hour) * 1000)::bigint as hour_ms, most, average
from :"schema".presence_concurrency_between(
  $1, ((now() at time zone 'UTC')::date - $2::integer + 1)::timestamp at time zone 'UTC', now()
)
order by hour;

-- name: waits
select language_code, grouping(language_code) = 1 as total,
       count(waited_s) as admitted,
       count(*) filter (where waited_s >= 1) as waited,
       percentile_cont(0.5) within group (order by waited_s) as median_s,
       percentile_cont(0.9) within group (order by waited_s) as p90_s,
       max(waited_s) as longest_s,
       count(gave_up_s) as gave_up,
       percentile_cont(0.5) within group (order by gave_up_s) as gave_up_median_s
from :"schema".presence_facts
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
group by grouping sets ((language_code), ())
order by total desc, language_code;

-- name: endings
select end_reason, sum(sessions)::bigint as sessions
from :"schema".presence_endings
where pool = $1 and day > (now() at time zone 'UTC')::date - $2::integer
group by end_reason
order by sessions desc, end_reason;
