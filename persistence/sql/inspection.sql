-- What `presence doctor` asks the catalogue: is the database as lockdown.sql leaves it? Reads only, needs no right.

-- name: who_we_are
select
  current_user::text as role,
  rolsuper as superuser,
  rolbypassrls as bypasses_rls,
  coalesce((
    select pg_has_role(relowner, 'usage') from pg_class where oid = to_regclass(':"schema".presence')
  ), false) as owns_the_tables,
  to_regrole('presence_server') is not null and pg_has_role(to_regrole('presence_server'), 'usage') as is_server
from pg_roles
where rolname = current_user;

-- name: missing_privileges
select privilege || ' on ' || name as missing
from (values
  ('presence', 'SELECT'), ('presence', 'INSERT'), ('presence', 'UPDATE'), ('presence', 'DELETE'),
  ('presence_pools', 'SELECT'), ('presence_pools', 'INSERT'), ('presence_pools', 'UPDATE'),
  ('presence_forgotten', 'SELECT'), ('presence_forgotten', 'INSERT'), ('presence_forgotten', 'DELETE'),
  ('presence_migrations', 'SELECT')
) as needed (name, privilege)
where to_regclass(format(':"schema".%I', name)) is not null
  and not (
    has_schema_privilege(to_regnamespace(':"schema"'), 'usage')
    and has_table_privilege(to_regclass(format(':"schema".%I', name)), privilege)
  )
order by 1;

-- name: tables_without_rls
select relname::text as name
from pg_class
where relnamespace = to_regnamespace(':"schema"') and relkind in ('r', 'p') and not relrowsecurity
  and relname in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
order by 1;

-- name: open_policies
select policyname || ' on ' || tablename || ' (' || cmd || ' to ' || array_to_string(roles, ', ') || ')' as policy
from pg_policies
where schemaname = :'schema'
  and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
  and roles && array['public', 'anon', 'authenticated']::name[]
  and (policyname <> 'presence_closed' or qual is distinct from 'false')
order by 1;

-- name: open_grants
with recursive ours (id) as (
  select oid from pg_class
  where relnamespace = to_regnamespace(':"schema"')
    and relname in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
  union
  select rule.ev_class
  from ours
  join pg_depend as need
    on need.refclassid = 'pg_class'::regclass and need.refobjid = ours.id and need.classid = 'pg_rewrite'::regclass
  join pg_rewrite as rule on rule.oid = need.objid
),
things (what, acl) as (
  select oid::regclass::text, relacl from pg_class where oid in (select id from ours)
  union all
  select attrelid::regclass || '.' || attname, attacl
  from pg_attribute where attrelid in (select id from ours) and attacl is not null
  union all
  select oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))
  from pg_proc
  where pronamespace = to_regnamespace(':"schema"')
    and (proname = 'cleanup_stale_sessions' or proname like 'presence\_%')
)
select what || ' to ' || case grantee when 0 then 'public' else pg_get_userbyid(grantee) end as granted
from things, aclexplode(acl)
where grantee = 0 or pg_get_userbyid(grantee) in ('anon', 'authenticated')
group by 1
order by 1;

-- name: published
select tablename || ' in ' || pubname as published
from pg_publication_tables
where pubname = 'supabase_realtime' and schemaname = :'schema'
  and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
order by 1;
