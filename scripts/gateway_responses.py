"""Corrects MiniStack: API Gateway answers as the template says, and as it does on AWS.

The corrections replace private Python functions of MiniStack. See `emulator.py`.
"""

import gzip
from http import HTTPStatus
from typing import Any

from ministack import app
from ministack.services import apigateway_v1


def use() -> None:
    """Make MiniStack's API Gateway answer as the real one does."""
    answer_as_in_template()
    compress_responses()
    keep_missing_slash()


def answer_as_in_template() -> None:
    """Answer errors and preflight requests as the template says (`GatewayResponses` and `Cors`).

    MiniStack can give errors another form, and add headers to preflight responses, but does not
    read these from a CloudFormation template. It also has an answer of its own, with the status
    502, if a Lambda function fails. On AWS, such a failure is the error INTEGRATION_FAILURE.
    """
    import_api, import_operation = apigateway_v1._import_rest_api, apigateway_v1._import_operation
    invoke = apigateway_v1._invoke_lambda_proxy_v1

    def import_with_responses(specification: dict[str, Any], *arguments: object) -> str:
        api_id: str = import_api(specification, *arguments)
        responses = specification.get("x-amazon-apigateway-gateway-responses", {})
        for error_type, response in responses.items():
            apigateway_v1._put_gateway_response(api_id, error_type, response)
        return api_id

    def import_with_answer(
        api_id: str, resource_id: str, method: str, operation: dict[str, Any], *arguments: object
    ) -> None:
        import_operation(api_id, resource_id, method, operation, *arguments)
        integration = operation["x-amazon-apigateway-integration"]
        for response in integration.get("responses", {}).values():
            apigateway_v1._put_integration_response(
                api_id, resource_id, method, response["statusCode"], response
            )

    async def invoke_or_fail(*arguments: object, **more: object) -> Any:  # noqa: ANN401  MiniStack's own
        answer = await invoke(*arguments, **more)
        if isinstance(answer, tuple) and answer[0] == HTTPStatus.BAD_GATEWAY:
            return apigateway_v1._gw_error("INTEGRATION_FAILURE", "Internal server error")
        return answer

    apigateway_v1._import_rest_api = import_with_responses
    apigateway_v1._import_operation = import_with_answer
    apigateway_v1._invoke_lambda_proxy_v1 = invoke_or_fail


def compress_responses() -> None:
    """Compress responses if the template has `MinimumCompressionSize`. MiniStack ignores it.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-receive-response-with-compressed-payload.html
    """
    handle = apigateway_v1._handle_execute_in_scope

    async def handle_and_compress(
        api_id: str, stage: str, method: str, path: str, headers: dict[str, Any], *more: object
    ) -> tuple[int, dict[str, Any], bytes]:
        status, response_headers, body = await handle(api_id, stage, method, path, headers, *more)
        least = apigateway_v1._rest_apis.get(api_id, {}).get("minimumCompressionSize")
        accepted = apigateway_v1._header_ci(headers, "accept-encoding").split(",")
        accepts_gzip = "gzip" in {each.partition(";")[0].strip() for each in accepted}
        if least is not None and len(body) >= int(least) and accepts_gzip:
            body = gzip.compress(body)
            response_headers = {**response_headers, "Content-Encoding": "gzip"}
        return status, response_headers, body

    apigateway_v1._handle_execute_in_scope = handle_and_compress


def keep_missing_slash() -> None:
    """Let the function of the route `/` see whether the URL ends with a slash, as on AWS.

    For both URLs, MiniStack would pass a path with a slash to the function.
    """
    parse, build = app._parse_execute_api_url, apigateway_v1._build_lambda_event_v1

    def parse_exactly(host: str, path: str) -> tuple[str, str, str] | None:
        parsed: tuple[str, str, str] | None = parse(host, path)
        if parsed and parsed[2] == "/" and not path.endswith("/"):
            return parsed[0], parsed[1], ""
        return parsed

    def build_with_path(*arguments: object, **more: object) -> dict[str, Any]:
        event: dict[str, Any] = build(*arguments, **more)
        event["path"] = event["path"] or "/"  # the path in requestContext stays as in the URL
        return event

    app._parse_execute_api_url = parse_exactly
    apigateway_v1._build_lambda_event_v1 = build_with_path
