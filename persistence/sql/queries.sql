-- The statements of the repository, each under its name. $n are its arguments in order.

-- name: write_sessions
-- Moves rows forward only: a higher version, or the same version and a newer last_seen. What is completed stays
-- completed, unless the same id was started again later. What was taken before its person was forgotten is dropped.
-- $1: rows as persistence/lines.py has them.
insert into :"schema".presence as kept (
  session_id, user_id, language_code, current_page, last_seen, started_at, completed_at, is_in_interview, status,
  pool, interview_started_at, interview_ended_at, waited_s, end_reason, metadata, version
)
select
  session_id, user_id, language_code, current_page, to_timestamp(last_seen / 1e3::float8),
  to_timestamp(started_at / 1e3::float8), to_timestamp(completed_at / 1e3::float8), is_in_interview, status,
  pool, to_timestamp(interview_started_at / 1e3::float8), to_timestamp(interview_ended_at / 1e3::float8),
  waited_s, end_reason, coalesce(metadata, '{}')::jsonb, version
from (
  select
    parts[1] as session_id, parts[2] as user_id, parts[3] as pool, parts[4] as status, parts[5]::bigint as version,
    parts[6]::bigint as started_at, parts[7]::bigint as last_seen, parts[8]::boolean as is_in_interview,
    parts[9] as language_code, parts[10] as current_page, parts[11]::bigint as completed_at,
    parts[12]::bigint as interview_started_at, parts[13]::bigint as interview_ended_at, parts[14]::float8 as waited_s,
    parts[15] as end_reason, parts[16] as metadata
  from (
    -- `offset 0`: taken apart once, and not for each part.
    select string_to_array(line, chr(31), chr(30)) as parts from unnest($1::text[]) as line offset 0
  ) as lines
  offset 0
) as given
where not exists (
  select from :"schema".presence_forgotten as forgotten
  where forgotten.session_id = given.session_id and forgotten.version >= given.version
)
-- Two writers of the same rows in different order would deadlock.
order by session_id collate "C"
on conflict (session_id) do update set
  user_id = excluded.user_id,
  language_code = excluded.language_code,
  current_page = excluded.current_page,
  last_seen = excluded.last_seen,
  started_at = excluded.started_at,
  completed_at = excluded.completed_at,
  is_in_interview = excluded.is_in_interview,
  status = excluded.status,
  pool = excluded.pool,
  interview_started_at = excluded.interview_started_at,
  interview_ended_at = excluded.interview_ended_at,
  waited_s = excluded.waited_s,
  end_reason = excluded.end_reason,
  metadata = excluded.metadata,
  version = excluded.version
where (excluded.version, excluded.last_seen) > (kept.version, kept.last_seen)
  and (kept.status <> 'completed' or excluded.status = 'completed' or excluded.started_at > kept.started_at);

-- name: kept
-- What the table holds of sessions after a write that did not take all of them. It has locked their rows.
select session_id, version, status,
       floor(extract(epoch from last_seen) * 1000)::bigint as last_seen_ms,
       floor(extract(epoch from started_at) * 1000)::bigint as started_at_ms
from :"schema".presence
where session_id = any($1::text[]);

-- name: by_id
-- For what move_last_seen is to do: look its rows up one by one in the order of their ids, whatever else seems cheaper.
select set_config('enable_hashjoin', 'off', true), set_config('enable_seqscan', 'off', true);

-- name: move_last_seen
-- Only of rows that are as the live state has them but for last_seen. No index holds it, so none is written.
update :"schema".presence as kept
set last_seen = to_timestamp(given.last_seen / 1e3::float8)
from (
  select * from unnest($1::text[], $2::bigint[], $3::bigint[]) as given (session_id, version, last_seen)
  -- In the order in which all others lock rows: two of them would deadlock.
  order by session_id collate "C"
) as given
where kept.session_id = given.session_id
  and kept.version = given.version
  and kept.status = 'active'
  and kept.last_seen < to_timestamp(given.last_seen / 1e3::float8);

-- name: missed
-- Those of $1 that move_last_seen did not find as they should be.
select session_id
from unnest($1::text[], $2::bigint[], $3::bigint[]) as given (session_id, version, last_seen)
where not exists (
  select from :"schema".presence as kept
  where kept.session_id = given.session_id
    and kept.version = given.version
    and kept.status = 'active'
    and kept.last_seen >= to_timestamp(given.last_seen / 1e3::float8)
);

-- name: write_pools
insert into :"schema".presence_pools (pool, "limit", mode)
select pool, "limit", mode
from unnest($1::text[], $2::integer[], $3::text[]) as given (pool, "limit", mode)
order by pool
on conflict (pool) do update
set "limit" = excluded."limit", mode = excluded.mode, flushed_at = now();

-- name: session
select session_id, user_id, pool, status, version,
       floor(extract(epoch from started_at) * 1000)::bigint as started_at_ms,
       floor(extract(epoch from last_seen) * 1000)::bigint as last_seen_ms,
       is_in_interview, language_code, current_page,
       floor(extract(epoch from completed_at) * 1000)::bigint as completed_at_ms,
       floor(extract(epoch from interview_started_at) * 1000)::bigint as interview_started_at_ms,
       floor(extract(epoch from interview_ended_at) * 1000)::bigint as interview_ended_at_ms,
       waited_s, end_reason, metadata::text as metadata
from :"schema".presence
where session_id = $1;

-- name: sessions
-- Newest first, those behind the (started_at, session_id) of $5 and $6; each filter may be null.
select session_id, user_id, pool, status, version,
       floor(extract(epoch from started_at) * 1000)::bigint as started_at_ms,
       floor(extract(epoch from last_seen) * 1000)::bigint as last_seen_ms,
       is_in_interview, language_code, current_page,
       floor(extract(epoch from completed_at) * 1000)::bigint as completed_at_ms,
       floor(extract(epoch from interview_started_at) * 1000)::bigint as interview_started_at_ms,
       floor(extract(epoch from interview_ended_at) * 1000)::bigint as interview_ended_at_ms,
       waited_s, end_reason, metadata::text as metadata
from :"schema".presence
where pool = $1
  and ($2::text is null or status = $2)
  and ($3::text is null or language_code = $3)
  and ($4::text is null or user_id = $4)
  and (started_at, session_id) < (coalesce(to_timestamp($5::bigint / 1e3::float8), 'infinity'), coalesce($6::text, ''))
order by started_at desc, session_id desc
limit $7;

-- name: stale
-- Active rows not seen for $2 seconds, by id, those behind $1.
select session_id, pool
from :"schema".presence
where status = 'active' and session_id > $1 and last_seen < now() - $2::float8 * interval '1 second'
order by session_id
limit $3;

-- name: abandon
-- Those of $1 that are still active and not seen for $2 seconds. Locked in the order in which a flush writes.
with gone as (
  select session_id from :"schema".presence
  where session_id = any($1::text[])
    and status = 'active' and last_seen < now() - $2::float8 * interval '1 second'
  order by session_id
  for update
)
update :"schema".presence as sessions
set status = 'abandoned',
    end_reason = 'abandoned',
    interview_ended_at = case when is_in_interview then last_seen else interview_ended_at end,
    is_in_interview = false
from gone
where sessions.session_id = gone.session_id
returning sessions.session_id;

-- name: applied
select name from :"schema".presence_migrations order by name;

-- name: record_migration
insert into :"schema".presence_migrations (name) values ($1) on conflict (name) do nothing;
