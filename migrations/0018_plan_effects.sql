-- A receipt says what an agent did; whether it helped is the quorum's judgement from the merged metrics, which
-- comes later. Empty until then.
ALTER TABLE plans
    ADD COLUMN effect text CHECK (effect IN ('better', 'worse', 'inconclusive')),
    ADD COLUMN settled_at timestamptz,
    ADD CHECK ((effect IS NULL) = (settled_at IS NULL));
