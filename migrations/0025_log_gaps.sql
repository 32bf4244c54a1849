-- A replica that goes on from a checkpoint never sees the blocks below it, and neither does its database. What is not here
-- is named: heights from..to of the log. The newest plans of all targets stand in `plans` all the same, as the
-- checkpoint gave them.
CREATE TABLE log_gaps (
    first_height bigint      PRIMARY KEY CHECK (first_height > 0),
    last_height  bigint      NOT NULL CHECK (last_height >= first_height),
    block        bytea       NOT NULL CHECK (octet_length(block) = 32),
    state        bytea       NOT NULL CHECK (octet_length(state) = 32),
    agreed_time  timestamptz NOT NULL
);
