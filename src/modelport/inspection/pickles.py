"""An inert pickle machine: it goes through a pickle as the real one does, and makes nothing that the pickle names.

Classes and functions become `Name`s, their objects `Instance`s. What it does make is None, numbers, text, bytes, the containers of
the language and numpy's arrays, each by code of its own, by exact name. A scan of the opcodes would not do: what a pickle imports
depends on its stack and memo. Where the machines of `pickle` (C), `pickle` (Python) and joblib differ, this one refuses the bytes, so
that it never takes for data what another would run: a frame that an opcode or another frame crosses, an array in the midst of a frame.

The opcodes are described in the standard library's `pickletools`.
"""

from __future__ import annotations

import re
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Sized
from pickletools import opcodes
from typing import Any

from modelport.frameworks import Instance, Name
from modelport.inspection import arrays
from modelport.inspection.bounds import DEPTH, Budget, Malformed, key

ARRAY_WRAPPERS = frozenset({"joblib.numpy_pickle.NumpyArrayWrapper", "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper"})
"""What joblib puts for an array; the elements follow in the stream, outside the pickle."""
DTYPE = "numpy.dtype"
RECONSTRUCT = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
GETATTR = "builtins.getattr"
TAKES_CLASS = frozenset(
    {
        "functools.partial",
        "numpy.ma.core._mareconstruct",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.indexes.base._new_Index",
        "pandas.core.indexes.datetimes._new_DatetimeIndex",
        "pandas.core.indexes.period._new_PeriodIndex",
    }
)
"""Functions that take a class as an argument and do not call it with what the pickle gives."""
SKELETON_CLASS = frozenset({"cloudpickle.cloudpickle._make_skeleton_class", "cloudpickle.cloudpickle._make_skeleton_enum"})
"""What makes a class of the code of a notebook or script, which cloudpickle keeps in the pickle: the second argument is its name."""
MAX_TEXT = 64 * 1024
"""The digits of an integer, or the characters of a name."""
_INTEGER = re.compile(rb"[+-]?[0-9]{1,4000}")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\\'\"nrt])")
_ESCAPED = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_PROTOCOLS = {ord(opcode.code): opcode.proto for opcode in opcodes}


class _Stop(Exception):
    """The pickle's last opcode."""


class Machine:
    """One stream of bytes that holds a pickle, or several in a row.

    `imports` and `calls` are what has been named so far: they hold when `load` raises, too, for a broken tail runs its payload
    before its error.
    """

    def __init__(self, data: bytes, budget: Budget, outer: Machine | None = None) -> None:
        self.data = data
        self.budget = budget
        self.depth: int = outer.depth + 1 if outer else 0
        self.imports: set[str] = outer.imports if outer else set()
        self.calls: set[str] = outer.calls if outer else set()
        self.seen: bytearray = outer.seen if outer else bytearray(256)
        """Which opcodes there were."""
        self.position = 0
        self.wrapped = False
        """Whether arrays stand in the stream as joblib puts them there."""
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.places: dict[int, list[int]] = {}
        """The memo's keys of the arrays and dtypes that are not built yet, by id."""
        self.limit = len(data)
        self.version = 0
        """What the PROTO opcode of this pickle said; 0 before there was one."""
        self.highest = 0
        self.loose_getattr = 0
        """How often `getattr` was put on the stack and not called there with a class and a name: then it may be called by another."""
        if self.depth > DEPTH:
            raise Malformed("is a bomb: pickles lie in pickles too deep")

    @property
    def protocol(self) -> int:
        """The highest protocol that the opcodes so far belong to."""
        return max(self.highest, max((_PROTOCOLS[op] for op in range(256) if self.seen[op]), default=0))

    def load(self, position: int = 0) -> Any:
        """The object that the pickle at `position` holds; `position` of the machine is then where it ends. Malformed when it does not."""
        self.position, self.limit = position, len(self.data)
        self.stack, self.marked, self.memo, self.places = [], [], {}, {}
        self.version = self.loose_getattr = 0
        try:
            self._run()
        except _Stop:
            if not self.stack:
                raise Malformed(f"is no whole pickle: it stops at byte {self.position} with nothing made") from None
            return self.stack[-1]
        except (IndexError, KeyError) as error:
            raise Malformed(f"is no whole pickle: byte {self.position} refers to what is not there ({error})") from None
        finally:
            if self.loose_getattr:
                self.imports.add(GETATTR)
        raise AssertionError("the loop ends by an exception only")

    def _run(self) -> None:
        data, seen, handlers = self.data, self.seen, _HANDLERS
        while True:
            self.budget.spend(8192)
            for _ in range(8192):
                position = self.position
                if position >= self.limit:
                    if position > self.limit or self.limit == len(data):
                        raise Malformed(f"is cut short: the pickle ends at byte {position} without its end mark")
                    self.limit = len(data)
                op = data[position]
                self.position = position + 1
                seen[op] = 1
                handler = handlers[op]
                if handler is None:
                    raise Malformed(f"is no whole pickle: byte {position} is {data[position : position + 1]!r}, which is no opcode")
                handler(self)

    # What the opcodes' arguments are made of

    def _take(self, length: int) -> bytes:
        start, end = self.position, self.position + length
        if end > self.limit:
            if self.limit == len(self.data):
                raise Malformed(f"is cut short: {length} bytes should follow byte {start}, and {len(self.data) - start} do")
            raise Malformed(f"is no whole pickle: an opcode at byte {start} crosses the end of its frame")
        self.position = end
        return self.data[start:end]

    def _number(self, length: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(length), "little", signed=signed)

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.limit)
        if end < 0:
            raise Malformed(f"is cut short: the line at byte {self.position} has no end")
        return self._take(end + 1 - self.position)[:-1]

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _since_mark(self) -> list[Any]:
        if not self.marked:
            raise Malformed(f"is no whole pickle: there is no mark before byte {self.position}")
        items = self.stack
        self.stack = self.marked.pop()
        return items

    # Numbers and text

    def _op_proto(self) -> None:
        version = self._number(1)
        if version > 5:
            raise Malformed(f"is a pickle of protocol {version}: there is none above 5")
        self.version = version
        self.highest = max(self.highest, version)

    def _op_frame(self) -> None:
        length = self._number(8)
        end = self.position + length
        if self.position < self.limit < len(self.data) or end > len(self.data):
            raise Malformed(f"is cut short: a frame of {length} bytes at byte {self.position} does not fit")
        self.limit = end

    def _op_int(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else self._integer(line))

    def _op_long(self) -> None:
        self._push(self._integer(self._line().removesuffix(b"L")))

    def _integer(self, text: bytes) -> int:
        if not _INTEGER.fullmatch(text):
            raise Malformed(f"is no whole pickle: byte {self.position} ends a line that is no integer")
        return int(text)

    def _op_long1(self) -> None:
        self._push(self._number(self._number(1), signed=True))

    def _op_long4(self) -> None:
        length = self._number(4, signed=True)
        if not 0 <= length <= MAX_TEXT:
            raise Malformed(f"is a bomb: an integer of {length} bytes")
        self._push(self._number(length, signed=True))

    def _op_float(self) -> None:
        line = self._line()
        if len(line) > 400:
            raise Malformed(f"is no whole pickle: byte {self.position} ends a line that is no number")
        self._push(float(line))

    def _op_binfloat(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0])

    def _op_string(self) -> None:
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b'"', b"'") or b"\\" in _ESCAPE.sub(b"", line):
            raise Malformed(f"is no whole pickle: byte {self.position} ends a line that is no text")
        self._push(_text_or_bytes(_ESCAPE.sub(_unescape, line[1:-1])))

    def _op_binstring(self) -> None:
        length = self._number(4, signed=True)
        if length < 0:
            raise Malformed("is no whole pickle: it holds text of a negative length")
        self._push(_text_or_bytes(self._take(length)))

    def _op_short_binstring(self) -> None:
        self._push(_text_or_bytes(self._take(self._number(1))))

    def _op_unicode(self) -> None:
        self._push(str(self._line(), "raw-unicode-escape"))

    def _op_short_binunicode(self) -> None:
        self._push(str(self._take(self._number(1)), "utf-8", "surrogatepass"))

    def _op_binunicode(self) -> None:
        self._push(str(self._take(self._number(4)), "utf-8", "surrogatepass"))

    def _op_binunicode8(self) -> None:
        self._push(str(self._take(self._number(8)), "utf-8", "surrogatepass"))

    def _op_bytearray8(self) -> None:
        self._push(bytearray(self._take(self._number(8))))

    def _op_readonly_buffer(self) -> None:
        if not isinstance(self.stack[-1], (bytes, bytearray)):
            raise Malformed("is no whole pickle: it makes read-only what is no buffer")

    def _op_out_of_band(self) -> None:
        raise Malformed("is only a part of a pickle: it refers to buffers or extensions that are kept elsewhere")

    # Containers

    def _op_mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _op_pop(self) -> None:
        if self.stack:
            del self.stack[-1]
        else:
            self._since_mark()

    def _op_dup(self) -> None:
        self._again(self.stack[-1])

    def _op_tuple(self) -> None:
        items = self._since_mark()
        self._push(tuple(items))

    def _op_tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _op_tuple2(self) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _op_tuple3(self) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _op_list(self) -> None:
        items = self._since_mark()
        self._push(items)

    def _op_dict(self) -> None:
        items = self._since_mark()
        self._push(_pairs(items))

    def _op_frozenset(self) -> None:
        items = self._since_mark()
        self._push(frozenset(key(item) for item in items))

    def _op_append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _op_appends(self) -> None:
        items = self._since_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Instance):
            target.items.extend(items)
        else:
            raise Malformed(f"is no whole pickle: byte {self.position} appends to a {type(target).__name__}")

    def _op_setitem(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self._update(self.stack[-1], [name, value])

    def _op_setitems(self) -> None:
        items = self._since_mark()
        self._update(self.stack[-1], items)

    def _update(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Instance):
            target = target.mapping
        if not isinstance(target, dict):
            raise Malformed(f"is no whole pickle: byte {self.position} sets a key of a {type(target).__name__}")
        target.update(_pairs(items))

    def _op_additems(self) -> None:
        items = self._since_mark()
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(key(item) for item in items)
        elif isinstance(target, Instance):
            target.items.extend(items)
        else:
            raise Malformed(f"is no whole pickle: byte {self.position} adds to a {type(target).__name__}")

    # The memo

    def _memoize(self, index: int) -> None:
        if index > len(self.data):
            raise Malformed(f"is a bomb: it keeps a value under the number {index}, which takes a table of that size")
        value = self.stack[-1]
        self.memo[index] = value
        if isinstance(value, Instance) and (value.cls == DTYPE or value.cls in RECONSTRUCT):
            self.places.setdefault(id(value), []).append(index)

    def _op_memoize(self) -> None:
        self._memoize(len(self.memo))

    def _op_put(self) -> None:
        self._memoize(self._index())

    def _op_binput(self) -> None:
        self._memoize(self._number(1))

    def _op_long_binput(self) -> None:
        self._memoize(self._number(4))

    def _index(self) -> int:
        line = self._line()
        if not line.isdigit() or len(line) > 12:
            raise Malformed(f"is no whole pickle: byte {self.position} ends a line that is no number of the memo")
        return int(line)

    def _op_get(self) -> None:
        self._again(self.memo[self._index()])

    def _op_binget(self) -> None:
        self._again(self.memo[self._number(1)])

    def _op_long_binget(self) -> None:
        self._again(self.memo[self._number(4)])

    def _again(self, value: Any) -> None:
        if isinstance(value, Name) and value.name == GETATTR:
            self.loose_getattr += 1
        self.stack.append(value)

    # What a pickle names, and what it would call

    def _op_global(self) -> None:
        module, name = self._line(), self._line()
        self._push(self._find(module.decode(), name.decode()))

    def _op_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Malformed(f"is no whole pickle: byte {self.position} imports what is no name")
        self._push(self._find(module, name))

    def _find(self, module: str, name: str) -> Name:
        if self.version < 3:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[(module, name)]
            elif module in IMPORT_MAPPING:
                module = IMPORT_MAPPING[module]
        if len(module) + len(name) > 1000:
            raise Malformed(f"is a bomb: it imports a name of {len(module) + len(name)} characters")
        return self._name(f"{module}.{name}")

    def _name(self, full: str) -> Name:
        if full == GETATTR:
            self.loose_getattr += 1
        else:
            self.imports.add(full)
        return Name(full)

    def _op_persistent_line(self) -> None:
        self._push(Instance("persistent", (self._line().decode(),)))

    def _op_persistent(self) -> None:
        self._push(Instance("persistent", (self.stack.pop(),)))

    def _op_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self._push(self._call(function, args))

    def _op_inst(self) -> None:
        module, name = self._line().decode(), self._line().decode()
        args = tuple(self._since_mark())
        self._push(self._make(self._find(module, name), args, called=bool(args)))

    def _op_obj(self) -> None:
        items = self._since_mark()
        self._push(self._make(items[0], tuple(items[1:]), called=len(items) > 1))

    def _op_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self._push(self._make(cls, args, called=bool(args)))

    def _op_newobj_ex(self) -> None:
        kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if not isinstance(kwargs, dict) or not isinstance(args, tuple):
            raise Malformed(f"is no whole pickle: byte {self.position} makes an object of what are no arguments")
        self._push(self._make(cls, (*args, kwargs) if kwargs else args, called=bool(args or kwargs)))

    def _make(self, cls: Any, args: Any, *, called: bool) -> Any:
        if isinstance(cls, Instance) and cls.cls in SKELETON_CLASS and len(cls.args) > 1 and isinstance(args, tuple):
            self.imports.add(f"{cls.cls}.__call__")
            return Instance(f"__main__.{cls.args[1]}", args)
        if not isinstance(cls, Name) or not isinstance(args, tuple):
            raise Malformed(f"is no whole pickle: byte {self.position} makes an object of what is no class")
        if cls.name in _REBUILD and cls.name != GETATTR:
            return self._call(cls, args)
        if called:
            self._called(cls.name, args)
        return Instance(cls.name, args)

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple) or not isinstance(function, (Name, Instance)):
            raise Malformed(f"is no whole pickle: byte {self.position} calls what is no function")
        if isinstance(function, Instance):
            name = f"{function.cls}.__call__"
            self.imports.add(name)
        else:
            name = function.name
            if name in _REBUILD:
                self.budget.spend(sum(len(arg) for arg in args if isinstance(arg, Sized)))
                made = _REBUILD[name](self, args)
                if made is not None:
                    return made[0]
        self._called(name, args)
        return Instance(name, args)

    def _called(self, name: str, args: tuple[Any, ...]) -> None:
        """Note that `name` is called with `args`; and so, perhaps, are the classes and functions among them."""
        self.calls.add(name)
        if name not in TAKES_CLASS and "__pyx_unpickle_" not in name:
            self.calls.update(arg.name for arg in args if isinstance(arg, Name))
            if any(isinstance(arg, Instance) and arg.cls == "functools.partial" for arg in args):
                self.imports.add("functools.partial.__call__")

    def attribute(self, owner: Any, attribute: Any) -> Name | None:
        """`getattr(owner, attribute)` as the name it stands for; None when it stands for none."""
        if not isinstance(attribute, str) or not isinstance(owner, (Name, Instance)) or len(attribute) > 1000:
            return None
        self.loose_getattr -= 1
        return self._name(f"{owner.name if isinstance(owner, Name) else owner.cls}.{attribute}")

    def ufunc(self, module: Any, name: Any) -> Name | None:
        """`numpy.core._ufunc_reconstruct(module, name)`, which imports as the GLOBAL opcode does."""
        return self._name(f"{module}.{name}") if isinstance(module, str) and isinstance(name, str) else None

    def _op_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, (dict, list, set)):
            return
        if isinstance(target, Name):
            self.imports.add(f"{target.name}.__setattr__")
            raise Malformed(f"sets attributes of {target.name} itself")
        if not isinstance(target, Instance):
            raise Malformed(f"is no whole pickle: byte {self.position} sets the state of a {type(target).__name__}")
        if target.cls == DTYPE or target.cls in RECONSTRUCT:
            self._built(target, state)
            return
        self.budget.spend(len(state) if isinstance(state, (dict, tuple)) else 1)
        _set_state(target, state)
        if target.cls in ARRAY_WRAPPERS:
            self.stack[-1] = self._stored(target)

    def _built(self, target: Instance, state: Any) -> None:
        """Put the array or dtype that `target` has now become in its place."""
        if target.state is not None or state is None:
            raise Malformed(f"is no whole pickle: byte {self.position} builds an array twice")
        target.state = state
        if target.cls == DTYPE:
            made: Any = arrays.dtype(target.args[0], state)
        else:
            if not isinstance(state, tuple) or len(state) not in (4, 5):
                raise Malformed(f"is no whole pickle: byte {self.position} builds an array of what is none")
            self.budget.spend(len(state[-1]) if isinstance(state[-1], list) else 1)
            made = arrays.array(*state[-4:])
        if made is None:
            return
        self.stack[-1] = made
        for index in self.places.pop(id(target), ()):
            if self.memo.get(index) is target:
                self.memo[index] = made

    def _stored(self, wrapper: Instance) -> Any:
        """The array that joblib wrote behind `wrapper`; one of objects is a pickle of its own."""
        self.wrapped = True
        if self.position < self.limit < len(self.data):
            raise Malformed(f"is no whole pickle: the array at byte {self.position} stands in the midst of a frame")
        self.limit = len(self.data)
        array, end = arrays.stored(wrapper, self.data, self.position)
        if array is None:
            inner = Machine(self.data, self.budget, self)
            array = inner.load(end)
            if inner.position < inner.limit < len(self.data):
                raise Malformed(f"is no whole pickle: the pickle that ends at byte {inner.position} ends in the midst of a frame")
            end = inner.position
        self.position = end
        return array

    def _op_stop(self) -> None:
        raise _Stop


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Malformed("is no whole pickle: a dict has a key without a value")
    return {name if type(name) is str else key(name): value for name, value in zip(items[::2], items[1::2], strict=True)}


def _set_state(target: Instance, state: Any) -> None:
    """What `__setstate__`, or the want of it, does: attributes from a dict, also from the (dict, slots) pair; else the state itself."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict) and isinstance(state[0], (dict, type(None))):
        state = {**(state[0] or {}), **state[1]}
    if isinstance(state, dict):
        target.state = {**target.state, **state} if isinstance(target.state, dict) else dict(state)
    else:
        target.state = state


def _text_or_bytes(raw: bytes) -> str | bytes:
    """Python 2's str: text where it is ASCII, as pickle decides by default; the bytes where it is not."""
    return raw.decode("ascii") if raw.isascii() else raw


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1][1:], 16)]) if match[1][:1] == b"x" else _ESCAPED[match[1]]


# What is made by name: each gives a tuple of the one value, or None when the arguments are not the usual ones, and then nothing is made


def _bytes(machine: Machine, args: tuple[Any, ...]) -> Any:
    if len(args) == 1 and type(args[0]) is int and args[0] > MAX_TEXT:
        raise Malformed(f"is a bomb: it makes {args[0]} bytes out of nothing")
    if not args:
        return (b"",)
    if len(args) == 1 and isinstance(args[0], (bytes, bytearray)):
        return (bytes(args[0]),)
    if len(args) == 1 and isinstance(args[0], list) and all(type(part) is int and 0 <= part < 256 for part in args[0]):
        return (bytes(args[0]),)
    return (args[0].encode("latin-1"),) if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin-1", "latin1") else None


def _bytearray(machine: Machine, args: tuple[Any, ...]) -> Any:
    made = _bytes(machine, args)
    return made and (bytearray(made[0]),)


def _encode(machine: Machine, args: tuple[Any, ...]) -> Any:
    usual = len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1", "utf-8", "utf8", "ascii")
    return (args[0].encode(args[1]),) if usual else None


def _list(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (list(*args),) if not args or (len(args) == 1 and isinstance(args[0], (list, tuple))) else None


def _tuple(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (tuple(*args),) if not args or (len(args) == 1 and isinstance(args[0], (list, tuple))) else None


def _set(machine: Machine, args: tuple[Any, ...]) -> Any:
    usual = not args or (len(args) == 1 and isinstance(args[0], (list, tuple, set, frozenset)))
    return ({key(part) for part in args[0]} if args else set(),) if usual else None


def _frozenset(machine: Machine, args: tuple[Any, ...]) -> Any:
    made = _set(machine, args)
    return made and (frozenset(made[0]),)


def _dict(machine: Machine, args: tuple[Any, ...]) -> Any:
    if not args:
        return ({},)
    if len(args) != 1 or not isinstance(args[0], (dict, list, tuple)):
        return None
    if isinstance(args[0], dict):
        return (dict(args[0]),)
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in args[0]):
        return None
    return ({key(name): value for name, value in args[0]},)


def _defaultdict(machine: Machine, args: tuple[Any, ...]) -> Any:
    if args and isinstance(args[0], Name):
        machine.calls.add(args[0].name)
    return _dict(machine, args[1:]) if not args or args[0] is None or isinstance(args[0], Name) else None


def _plain(make: Callable[..., Any], *kinds: type) -> Callable[[Machine, tuple[Any, ...]], Any]:
    def rebuild(machine: Machine, args: tuple[Any, ...]) -> Any:
        return (make(*args),) if len(args) <= 3 and all(type(arg) in kinds for arg in args) else None

    return rebuild


def _object(machine: Machine, args: tuple[Any, ...]) -> Any:
    return None if args else (Instance("builtins.object"),)


def _reconstructor(machine: Machine, args: tuple[Any, ...]) -> Any:
    if len(args) != 3 or not isinstance(args[0], Name) or not isinstance(args[1], Name):
        return None
    cls, base, state = args
    if base.name == "builtins.object":
        return (Instance(cls.name),)
    if base.name == "builtins.dict" and isinstance(state, dict):
        return (Instance(cls.name, mapping=dict(state)),)
    if base.name == "builtins.list" and isinstance(state, list):
        return (Instance(cls.name, items=list(state)),)
    plain = ("builtins.tuple", "builtins.int", "builtins.float", "builtins.str", "builtins.bytes", "builtins.set", "builtins.frozenset")
    return (Instance(cls.name, (state,)),) if base.name in plain else None


def _newobj(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (machine._make(args[0], args[1:], called=len(args) > 1),) if args and isinstance(args[0], Name) else None


def _newobj_ex(machine: Machine, args: tuple[Any, ...]) -> Any:
    if len(args) != 3 or not isinstance(args[0], Name) or not isinstance(args[1], tuple) or not isinstance(args[2], dict):
        return None
    return (machine._make(args[0], (*args[1], args[2]) if args[2] else args[1], called=bool(args[1] or args[2])),)


def _getattr(machine: Machine, args: tuple[Any, ...]) -> Any:
    found = machine.attribute(*args) if len(args) == 2 else None
    return found and (found,)


def _ufunc(machine: Machine, args: tuple[Any, ...]) -> Any:
    found = machine.ufunc(*args) if len(args) == 2 else None
    return found and (found,)


def _dtype(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (Instance(DTYPE, args),) if 1 <= len(args) <= 3 and arrays.dtype(args[0]) is not None else None


def _reconstruct(machine: Machine, args: tuple[Any, ...]) -> Any:
    usual = len(args) == 3 and isinstance(args[0], Name) and args[1] in ((0,), [0])
    return (Instance("numpy._core.multiarray._reconstruct", args),) if usual else None


def _from_buffer(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (arrays.array(args[2], args[1], args[3] == "F", args[0]),) if len(args) == 4 else None


def _scalar(machine: Machine, args: tuple[Any, ...]) -> Any:
    return (arrays.scalar(*args),) if len(args) == 2 else None


_REBUILD: dict[str, Callable[[Machine, tuple[Any, ...]], Any]] = {
    "_codecs.encode": _encode,
    "builtins.bool": _plain(bool, bool, int, float),
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _plain(complex, int, float),
    "builtins.dict": _dict,
    "builtins.float": _plain(float, int, float),
    "builtins.frozenset": _frozenset,
    "builtins.getattr": _getattr,
    "builtins.int": _plain(int, bool, int),
    "builtins.list": _list,
    "builtins.object": _object,
    "builtins.range": _plain(range, int),
    "builtins.set": _set,
    "builtins.slice": _plain(slice, int, type(None)),
    "builtins.tuple": _tuple,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _defaultdict,
    "copyreg.__newobj__": _newobj,
    "copyreg.__newobj_ex__": _newobj_ex,
    "copyreg._reconstructor": _reconstructor,
    "numpy.core._ufunc_reconstruct": _ufunc,
    "numpy._core._ufunc_reconstruct": _ufunc,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    DTYPE: _dtype,
}


def _constant(make: Callable[[], Any]) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        machine.stack.append(make())

    return push


def _counted(length: int, *, signed: bool = False) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        machine.stack.append(machine._number(length, signed=signed))

    return push


def _sized(length: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        machine.stack.append(machine._take(machine._number(length)))

    return push


_BY_NAME: dict[str, Callable[[Machine], None]] = {
    "BINBYTES": _sized(4),
    "BINBYTES8": _sized(8),
    "BININT": _counted(4, signed=True),
    "BININT1": _counted(1),
    "BININT2": _counted(2),
    "BINPERSID": Machine._op_persistent,
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_SET": _constant(set),
    "EMPTY_TUPLE": _constant(tuple),
    "EXT1": Machine._op_out_of_band,
    "EXT2": Machine._op_out_of_band,
    "EXT4": Machine._op_out_of_band,
    "NEWFALSE": _constant(lambda: False),
    "NEWTRUE": _constant(lambda: True),
    "NEXT_BUFFER": Machine._op_out_of_band,
    "NONE": _constant(lambda: None),
    "PERSID": Machine._op_persistent_line,
    "POP_MARK": lambda machine: machine._since_mark().clear(),
    "SHORT_BINBYTES": _sized(1),
}
_HANDLERS: list[Callable[[Machine], None] | None] = [None] * 256
for _opcode in opcodes:
    _HANDLERS[ord(_opcode.code)] = _BY_NAME.get(_opcode.name) or getattr(Machine, f"_op_{_opcode.name.lower()}")
