-- A customer's orders are listed by the index over customer and status, a page of each status merged with
-- the others: one index fewer in which the orders of many customers touch a page for each.
drop index orders_by_customer;
