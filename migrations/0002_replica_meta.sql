-- A database belongs to one replica: a second one pointed at it by mistake must be refused before it mixes
-- its rows in. `generation` rises with every connect, so that an older process of the same replica that is
-- still alive can no longer write.
CREATE TABLE replica_meta (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    cluster    bytea   NOT NULL CHECK (octet_length(cluster) = 32),
    epoch      bigint  NOT NULL CHECK (epoch >= 0),
    replica    integer NOT NULL CHECK (replica >= 0),
    generation bigint  NOT NULL CHECK (generation > 0)
);
