"""One MCP tool and the offer it is sold under: its price, its run, its three kinds of answer.

Boundary: what is known of the tool when it is declared, and how the SDK runs it. Whether a call is
paid, and that it runs once, is decided above. Source: spec/payments-mcp.md.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import anyio.to_thread
import orjson
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.context_injection import find_context_parameter
from mcp.server.mcpserver.utilities.func_metadata import func_metadata
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, GetJsonSchemaHandler, PydanticUserError, RootModel
from pydantic_core import CoreSchema

from farthing.clients.counter import Sold
from farthing.clients.deliveries import Produced, Undeliverable
from farthing.clients.documents import Offer
from farthing.clients.metering import Meter
from farthing.clients.wares import Cap, Ware
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.shapes import REFUSAL
from farthing.protocol.shapes import Shape
from farthing.protocol.x402 import (
    PAYMENT_REQUIRED,
    PAYMENT_RESPONSE,
    Price,
    payment_required,
    unsettled,
)

__all__ = ["Making", "Payable", "delivered", "failed", "unpaid"]

_CONTEXT: Final = "farthing_context"


@dataclass(slots=True)
class Making:
    """One call's work: the tool's arguments as Python values, context included, and its answer.

    There is no answer where the work was done before, or where the tool made it all itself.
    """

    arguments: Mapping[str, object]
    answer: CallToolResult | None = None


class Payable(Ware):
    """A tool under its offer.

    Args:
        fn: The tool's function, async or not.
        offer: The published offer.
        meters: How each meter of the rate card is read.

    Raises:
        ValueError: The tool's result is not typed, or the meters fit neither card nor tool.
    """

    def __init__(self, fn: Callable[..., Any], offer: Offer, meters: Mapping[str, Meter]) -> None:
        own = inspect.signature(fn, eval_str=True)
        super().__init__(offer, meters, own)
        self.fn = fn
        self._is_async = inspect.iscoroutinefunction(fn)
        self.own_context = find_context_parameter(fn)
        self.context_name = self.own_context or _CONTEXT
        self._metadata = func_metadata(
            fn, skip_names=[self.own_context] if self.own_context else []
        )
        if self._metadata.output_schema is None:
            raise ValueError(f"{fn.__name__} has no typed result: what is sold has a schema")
        self.returns = Annotated[CallToolResult, _answered(self._metadata.output_model)]
        signature = own if self.own_context else _with_context(own)
        self.signature = signature.replace(return_annotation=self.returns)

    async def run(self, making: Making, shape: Shape, cap: Cap) -> Produced:
        """Do the work.

        Args:
            making: The tool's arguments; is given what the tool answers.
            shape: What the result is sold under.
            cap: The most that it may cost.

        Raises:
            Undeliverable: The tool failed as foreseen, or its result cannot be sold.
        """
        arguments = making.arguments
        plain = {name: each for name, each in arguments.items() if name != self.own_context}
        await self.check_cap(plain, cap)
        value = await self._invoke(arguments)
        converted = self._metadata.convert_result(value)
        if not isinstance(converted, CallToolResult):
            raise TypeError(f"{self.fn.__name__} asks for more input: what is paid for is whole")
        if converted.is_error:
            raise Undeliverable(refuse(Code.VENDOR_FAILED, message=_text(converted)))
        content = [
            block.model_dump(mode="json", by_alias=True, exclude_none=True)
            for block in converted.content
        ]
        produced = await self.produced(
            shape, converted.structured_content, plain, value, orjson.dumps(content)
        )
        making.answer = None if converted is value else converted
        return produced

    async def _invoke(self, arguments: Mapping[str, object]) -> object:
        try:
            if self._is_async:
                return await self.fn(**arguments)
            # A thread cannot be stopped: when the hold ends it is left to end by itself.
            value = await anyio.to_thread.run_sync(
                functools.partial(self.fn, **arguments), abandon_on_cancel=True
            )
            # What wraps an async function need not be one.
            return await value if inspect.isawaitable(value) else value
        except ToolError as error:
            raise Undeliverable(refuse(Code.VENDOR_FAILED, message=str(error))) from error


def unpaid(price: Price, refusal: Refusal) -> CallToolResult:
    """The answer to a call that is not paid, or not well enough: x402's `PaymentRequired`."""
    shape = payment_required(price, refusal)
    return CallToolResult(
        content=[TextContent(type="text", text=orjson.dumps(shape).decode())],
        structured_content=shape,
        is_error=True,
    )


def failed(refusal: Refusal, platform: str) -> CallToolResult:
    """The answer to a paid call that came to nothing; nothing is charged."""
    return CallToolResult(
        content=[TextContent(type="text", text=refusal.message)],
        structured_content=refusal.document(),
        is_error=True,
        _meta={PAYMENT_RESPONSE: unsettled(refusal, platform)},
    )


def delivered(sold: Sold, made: CallToolResult | None = None) -> CallToolResult:
    """The answer to a paid call: the kept result, and what was charged for it.

    Args:
        sold: What is kept.
        made: The same as it was just made, which spares reading it.
    """
    if made is not None:
        made.meta = {PAYMENT_RESPONSE: sold.response}
        return made
    return CallToolResult.model_validate({
        "content": orjson.loads(sold.content),
        "structuredContent": orjson.loads(sold.result),
        "_meta": {PAYMENT_RESPONSE: sold.response},
    })  # fmt: skip


def _answered(sold: object) -> type[BaseModel]:
    """What a tool advertises that it gives: what is sold, else what it asks for, else a refusal.

    All three travel as `structuredContent`, and clients check any against the one output schema.
    """
    try:

        class Answered(RootModel[sold]):  # type: ignore[valid-type] # known when declared
            @classmethod
            def __get_pydantic_json_schema__(
                cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
            ) -> dict[str, Any]:
                own = handler(core_schema)
                return {"type": "object", "anyOf": [own, PAYMENT_REQUIRED, REFUSAL]}

    except PydanticUserError as error:
        raise ValueError(f"the tool's result is not typed as it could be: {error}") from None
    return Answered


def _with_context(signature: inspect.Signature) -> inspect.Signature:
    wanted = inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=Context)
    parameters = list(signature.parameters.values())
    rest = parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - bool(rest), wanted)
    return signature.replace(parameters=parameters)


def _text(result: CallToolResult) -> str:
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    return "\n".join(texts) or Code.VENDOR_FAILED.says
