-- Windows that nobody reported are passed over together: they have a cycle number but no row of their own.
CREATE TABLE window_gaps (
    cycle        bigint PRIMARY KEY CHECK (cycle >= 0),
    first_window bigint NOT NULL CHECK (first_window >= 0),
    last_window  bigint NOT NULL CHECK (last_window >= first_window),
    height       bigint NOT NULL
);
