"""The notice about OpenAI's dates, before, on and after each of them, and the price of a job."""

from datetime import date, timedelta

import pytest

from emojitune.openai_calendar import (
    GPT_4_END,
    GPT_35_END,
    NEW_JOBS_END,
    fine_tuning_notice,
    training_dollars,
)

DAY = timedelta(days=1)


@pytest.mark.parametrize("end", [GPT_35_END, GPT_4_END])
def test_a_model_is_gone_from_its_last_day_on(end: date) -> None:
    def sentence_about(today: date) -> str:
        [sentence] = [line for line in fine_tuning_notice(today).split("\n") if f"{end}." in line]
        return sentence

    assert f"are shut down on {end}" in sentence_about(end - DAY)
    assert f"were shut down on {end}" in sentence_about(end)
    assert sentence_about(end + 400 * DAY) == sentence_about(end)


def test_new_jobs_end_for_everybody_on_their_last_day() -> None:
    before = fine_tuning_notice(NEW_JOBS_END - DAY)
    assert f"no new fine-tuning jobs from {NEW_JOBS_END} on" in before
    assert "already refuses organizations that have not used it lately" in before
    for day in (NEW_JOBS_END, NEW_JOBS_END + DAY, NEW_JOBS_END + 400 * DAY):
        after = fine_tuning_notice(day)
        assert f"no new fine-tuning jobs since {NEW_JOBS_END}" in after
        assert "already" not in after


def test_a_job_costs_its_trained_tokens() -> None:
    assert training_dollars(100_000, epochs=3) == pytest.approx(2.40)
