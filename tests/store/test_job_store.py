from typing import Any

import pytest

from emojitune.errors import InvalidStateError, NotFoundError
from emojitune.store.jobs import Job, JobError, JobStore


def create(jobs: JobStore, **changes: Any) -> Job:
    fields = {"model": "gpt-3.5-turbo-0125", "training_file": "file-a", "hyperparameters": {}}
    return jobs.create(**{**fields, **changes})


def messages(jobs: JobStore, job: Job) -> list[str]:
    return [event.message for event in jobs.events(job.id, limit=100).items]


def test_a_new_job_waits_for_validation_and_has_two_events(jobs: JobStore) -> None:
    job = create(jobs, validation_file="file-b", hyperparameters={"n_epochs": 3})
    assert jobs.get(job.id) == job
    assert job.status == "validating_files"
    assert job.hyperparameters == {"n_epochs": 3}
    assert 0 <= job.seed < 2**31
    assert messages(jobs, job) == [
        "Validating training file: file-a and validation file: file-b",
        f"Created fine-tuning job: {job.id}",
    ]


def test_a_given_seed_is_kept_also_when_it_is_zero(jobs: JobStore) -> None:
    assert create(jobs, seed=0).seed == 0


def test_unknown_jobs_are_not_found_in_openais_words(jobs: JobStore) -> None:
    for ask in (jobs.get, jobs.events, jobs.checkpoints):
        with pytest.raises(NotFoundError, match="Could not find fine tune: ftjob-x") as caught:
            ask("ftjob-x")
        assert caught.value.code == "fine_tune_not_found"
        assert caught.value.param == "fine_tune_id"


def test_a_transition_sets_its_columns_at_the_same_moment(jobs: JobStore) -> None:
    error = JobError("invalid_training_file", "bad", "training_file")
    job = jobs.transition(
        create(jobs).id, "failed", sources=["validating_files"], error=error, finished_at=5
    )
    assert (job.status, job.error, job.finished_at) == ("failed", error, 5)


def test_only_one_of_two_competing_transitions_wins(jobs: JobStore) -> None:
    job = create(jobs)
    jobs.transition(job.id, "cancelled", sources=["validating_files"])
    with pytest.raises(InvalidStateError, match="this one is cancelled"):
        jobs.transition(job.id, "queued", sources=["validating_files"])
    assert jobs.get(job.id).status == "cancelled"


def test_unfinished_jobs_come_oldest_first(jobs: JobStore) -> None:
    first, second, done = create(jobs), create(jobs), create(jobs)
    jobs.transition(done.id, "failed", sources=["validating_files"])
    assert [job.id for job in jobs.unfinished()] == [first.id, second.id]


def test_lists_can_be_filtered_by_metadata(jobs: JobStore) -> None:
    key, value = 'odd "key".$[0]', "it's"
    both = create(jobs, metadata={key: value, "team": "a"})
    create(jobs, metadata={key: "other"})
    bare = create(jobs)
    assert jobs.list(metadata={key: value, "team": "a"}).items == (both,)
    assert jobs.list(metadata={key: value, "team": "b"}).items == ()
    assert jobs.list(without_metadata=True).items == (bare,)


def test_an_event_with_a_key_is_added_once(jobs: JobStore) -> None:
    job, other = create(jobs), create(jobs)
    for _ in range(2):
        jobs.add_event(job.id, "Step 1/9", type="metrics", data={"step": 1}, key="step-1")
        jobs.add_event(job.id, "hello")
    jobs.add_event(other.id, "Step 1/9", key="step-1")
    assert messages(jobs, job)[:3] == ["hello", "hello", "Step 1/9"]
    assert messages(jobs, other)[0] == "Step 1/9"
    assert jobs.events(job.id).items[2].data == {"step": 1}


def test_events_page_without_gaps_while_new_ones_arrive(jobs: JobStore) -> None:
    job = create(jobs)
    for number in range(4):
        jobs.add_event(job.id, str(number))
    first = jobs.events(job.id, limit=2)
    jobs.add_event(job.id, "late")
    second = jobs.events(job.id, after=first.items[-1].id, limit=2)
    assert [event.message for event in (*first.items, *second.items)] == ["3", "2", "1", "0"]
    assert second.has_more


def test_a_checkpoint_of_a_step_is_added_once(jobs: JobStore) -> None:
    job = create(jobs)
    for model in ("first", "again"):
        jobs.add_checkpoint(job.id, model=model, step=10, metrics={"train_loss": 0.5})
    jobs.add_checkpoint(job.id, model="last", step=20, metrics={})
    checkpoints = jobs.checkpoints(job.id).items
    assert [(item.model, item.step) for item in checkpoints] == [("last", 20), ("first", 10)]
    assert checkpoints[1].metrics == {"train_loss": 0.5}
