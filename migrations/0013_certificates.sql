-- The quorum's signatures over a plan: the envelope as agents are given it, and each signature by itself for
-- questions of who signed what.
CREATE TABLE certificates (
    plan     bytea PRIMARY KEY REFERENCES plans (digest),
    envelope bytea NOT NULL
);

CREATE TABLE certificate_signatures (
    plan      bytea NOT NULL REFERENCES certificates (plan),
    keyid     bytea NOT NULL CHECK (octet_length(keyid) = 32),
    signature bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (plan, keyid)
);
