-- For people who query Postgres by hand: the user service's tables with native types.
create view users_readable as
select id::uuid as id,
       name,
       email,
       currency,
       available,
       held,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from users;

create view payments_readable as
select order_id::uuid as order_id,
       user_id::uuid as user_id,
       status,
       amount,
       nullif(currency, '') as currency,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at,
       timestamptz 'epoch' + updated_at * interval '1 microsecond' as updated_at,
       version
from payments;

create view notifications_readable as
select event_id::uuid as id,
       user_id::uuid as user_id,
       order_id::uuid as order_id,
       kind,
       text,
       timestamptz 'epoch' + created_at * interval '1 microsecond' as created_at
from notifications;
