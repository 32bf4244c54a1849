-- A capacity model finds in every window how many slots a load asks for: what a scaling plan was decided on.
ALTER TABLE findings DROP CONSTRAINT findings_symptom_check;
ALTER TABLE findings ADD CONSTRAINT findings_symptom_check
    CHECK (symptom IN ('threshold', 'absence', 'disputed', 'unconfirmed', 'gap', 'capacity'));
