"""The Degradation page of the shop, in a browser: what an operator sees of a real outage."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience.testing.waiting import wait_until
from tests.acceptance.shop import Shop
from tests.acceptance.upstream import PATIENCE_SECONDS
from tests.browser import Tab, running_browser
from tests.integration.page_stage import running_flower

SECONDS = 2.0
CIRCUITS = "{resilience}:circuits"
USERS = range(40, 48)
OPEN = b"|[1,"
"""How the store keeps a circuit that has opened once."""
ROW = "document.querySelector('tr[data-key=recommendations]')"


@pytest.fixture
def page(healthy_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page of the shop's own Flower, which takes orders of everybody."""
    directory = tmp_path_factory.mktemp("flower")
    env = healthy_shop.workers["search"].env
    with (
        running_flower("workers.app", env, directory, "--conf=workers/flowerconfig.py") as url,
        running_browser(directory) as tab,
    ):
        tab.open(f"{url}/degradation")
        tab.wait_for("document.querySelector('#live').textContent == 'Live'", PATIENCE_SECONDS)
        yield tab


def test_dependency_that_goes_down_is_on_the_page_within_two_seconds(
    healthy_shop: Shop, page: Tab
) -> None:
    """From the moment at which the fleet agrees, without a reload: open, why, the last error."""
    page.wait_for(f"{ROW}.cells[1].innerText == 'closed'")
    healthy_shop.upstreams["recommendations"].put_fault("fail")
    client = healthy_shop.valkey.client()

    def ask() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda user: healthy_shop.front.get(f"/recommendations/{user}"), USERS))
        kept = client.hget(CIRCUITS, "recommendations")
        return kept is not None and OPEN in kept  # type: ignore[operator] # as above

    wait_until(ask, PATIENCE_SECONDS, "the circuit is open")
    page.wait_for(f"/open/.test({ROW}.cells[1].innerText)", SECONDS)
    assert "fail" in page.run(f"{ROW}.cells[4].innerText")
    assert "HTTPStatusError" in page.run(f"{ROW}.cells[5].innerText")
    assert page.text("#level") != "FULL"

    def told() -> bool:
        # Workers report answers once Flower has asked them to, which it does every few seconds.
        healthy_shop.front.get("/recommendations/7")
        answers = "document.querySelector('#answers').innerText"
        return bool(page.run(f"/recommendations/.test({answers})"))

    wait_until(told, PATIENCE_SECONDS, "the page shows degraded answers")
    healthy_shop.upstreams["recommendations"].lift_fault()

    def closed() -> bool:
        healthy_shop.front.get("/recommendations/7")  # a probe
        return bool(page.run(f"{ROW}.cells[1].innerText == 'closed'"))

    wait_until(closed, PATIENCE_SECONDS, "the page shows that it is closed")
