"""Whether two devices take one piece of hardware; `check` and `up` ask the same."""

from collections import Counter
from collections.abc import Iterable

from dtolbus.errors import BoardError, CannotStartError, UsageError
from dtolbus_producer.boards import board_class
from dtolbus_producer.boards.guarding import GuardedBoard
from dtolbus_producer.tasks import DeviceConfig, WrongKeyError


def take(board: GuardedBoard, device: DeviceConfig, taken: dict[str, str]) -> None:
    """Note in `taken` (by hardware: the device's name) what the device's open board takes.

    A board that is one device's alone has, while it is open, a property `takes`: what it is, as people know it.
    Raises CannotStartError where another device does.
    """
    takes = board.takes
    if takes is None:
        return
    other = taken.setdefault(takes, device.name)
    if other != device.name:
        what = f"board = {device.board!r} is {takes}, which the device {other!r} has already"
        raise CannotStartError(f"{what}; name another in `board`, see `dtolbus boards`")


def refuse_shared(devices: Iterable[DeviceConfig]) -> None:
    """Raise CannotStartError where two of the devices take one piece of hardware.

    Boards of a kind that only one device has are not touched; the others are opened for a moment, one after another.
    One that is not to be had is left to its acquisition, which tells why.
    """
    devices = list(devices)
    counts = Counter(device.board_kind for device in devices)
    taken: dict[str, str] = {}
    for device in devices:
        kind = board_class(device.board_kind)
        if counts[device.board_kind] < 2 or not hasattr(kind, "takes"):
            continue
        try:
            board = GuardedBoard(device)
            board.open()
        except (BoardError, CannotStartError, UsageError, WrongKeyError):
            continue
        try:
            take(board, device, taken)
        except CannotStartError as error:
            raise CannotStartError(f"device {device.name!r}: {error}") from error
        finally:
            board.close()
