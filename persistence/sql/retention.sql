-- What deletes rows, each statement under its name.

-- name: delete_old
-- Up to $2 ended sessions that were last seen more than $1 days ago, the oldest of each pool first: a session starts
-- before it is seen last, so the index of a pool's newest sessions finds them from its other end. Locked in the order
-- in which a flush writes; what somebody else works on is left for the next time.
with recursive pools as (
  select min(pool) as pool from :"schema".presence
  union all
  select (select min(pool) from :"schema".presence where pool > pools.pool) from pools where pools.pool is not null
),
old as (
  select found.session_id
  from pools
  cross join lateral (
    select session_id
    from :"schema".presence
    where presence.pool = pools.pool
      and started_at < now() - $1::float8 * interval '1 day'
      and last_seen < now() - $1::float8 * interval '1 day'
      and status <> 'active'
    order by started_at, session_id
    limit $2
  ) as found
  limit $2
),
locked as (
  select session_id
  from :"schema".presence
  where session_id = any(array(select session_id from old))
  order by session_id
  for update skip locked
)
delete from :"schema".presence as sessions
using locked
where sessions.session_id = locked.session_id
returning sessions.session_id;

-- name: delete_marks
-- The marks of sessions that were forgotten so long ago that no flush can still hold their rows.
delete from :"schema".presence_forgotten
where forgotten_at < now() - interval '1 day';

-- name: stop_writes
-- Until the transaction ends nobody writes to the table; who reads it is not disturbed. What was under way is through.
lock table :"schema".presence in share row exclusive mode;

-- name: rows_of
select session_id, pool from :"schema".presence where user_id = $1 order by session_id;

-- name: mark
-- From now on the sessions $1 are written only in a version above $2.
insert into :"schema".presence_forgotten as kept (session_id, version)
select session_id, $2 from unnest($1::text[]) as given (session_id)
on conflict (session_id) do update
set version = greatest(kept.version, excluded.version), forgotten_at = now();

-- name: delete_rows_of
delete from :"schema".presence where user_id = $1;
