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
    where schemaname = :'schema'
      and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
      and roles && array['public', 'anon', 'authenticated']::name[]
      and (policyname <> 'presence_closed' or to_regrole('presence_server') is not null)
  loop
    execute format('drop policy %I on :"schema".%I', hole.policyname, hole.tablename);
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
    if not (select relrowsecurity from pg_class where oid = format(':"schema".%I', locked)::regclass) then
      execute format('alter table :"schema".%I enable row level security', locked);
      raise notice using errcode = 'PRSNC', message = 'turns on row level security of ' || locked;
    end if;
    if exists (
      select from pg_policies
      where schemaname = :'schema' and tablename = locked
        and policyname = case when to_regrole('presence_server') is null then 'presence_closed' else 'presence_server' end
    ) then
      continue;
    end if;
    execute case
      when to_regrole('presence_server') is null then
        format('create policy presence_closed on :"schema".%I using (false)', locked)
      when locked = 'presence_migrations' then
        format('create policy presence_server on :"schema".%I for select to presence_server using (true)', locked)
      else
        format('create policy presence_server on :"schema".%I to presence_server using (true) with check (true)', locked)
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
      where relnamespace = to_regnamespace(':"schema"')
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
      where pronamespace = to_regnamespace(':"schema"')
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
  if not has_schema_privilege('presence_server', to_regnamespace(':"schema"'), 'usage') then
    grant usage on schema :"schema" to presence_server;
  end if;
  grant select, insert, update, delete on :"schema".presence to presence_server;
  grant select, insert, update on :"schema".presence_pools to presence_server;
  grant select, insert, update, delete on :"schema".presence_forgotten to presence_server;
  grant select on :"schema".presence_migrations to presence_server;
  for needed in
    with recursive views (id) as (
      select ':"schema".presence'::regclass::oid
      union
      select ':"schema".presence_pools'::regclass::oid
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
      and refobjid = ':"schema".presence'::regclass and deptype in ('a', 'i') and relkind = 'S'
    union all
    select 'execute on routine ' || oid::regprocedure
    from pg_proc
    where pronamespace = to_regnamespace(':"schema"')
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
    where pubname = 'supabase_realtime' and schemaname = :'schema'
      and tablename in ('presence', 'presence_pools', 'presence_forgotten', 'presence_migrations')
  loop
    if exists (
      select from pg_publication_rel join pg_publication on pg_publication.oid = prpubid
      where pubname = 'supabase_realtime' and prrelid = format(':"schema".%I', published.tablename)::regclass
    ) then
      execute format('alter publication supabase_realtime drop table :"schema".%I', published.tablename);
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
