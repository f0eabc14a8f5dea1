"""Rent phone numbers and receive the one-time codes (OTPs) sent to them, in Prefect flows."""

from prefect_smsverify.callbacks import serve_callbacks
from prefect_smsverify.credentials import SmsVerifyCredentials
from prefect_smsverify.flows import reconcile_flow, renew_rentals_flow
from prefect_smsverify.messages import MESSAGE_RECEIVED, publish_message_events_flow
from prefect_smsverify.overview import apublish_overview, publish_overview
from prefect_smsverify.progress import apublish_progress, publish_progress
from prefect_smsverify.rentals import (
    arenew_expiring_rentals,
    arenew_rental,
    renew_expiring_rentals,
    renew_rental,
)
from prefect_smsverify.rented import RentedNumber, arented_number, rented_number
from prefect_smsverify.tasks import (
    acancel_order,
    aget_balance,
    aget_message,
    aget_order_status,
    aorder_number,
    areconcile,
    await_otp,
    await_otps,
    cancel_order,
    get_balance,
    get_message,
    get_order_status,
    order_number,
    reconcile,
    wait_for_otp,
    wait_for_otps,
)
from prefect_smsverify.verify import averify_number, verify_number

__all__ = [
    "MESSAGE_RECEIVED",
    "RentedNumber",
    "SmsVerifyCredentials",
    "acancel_order",
    "aget_balance",
    "aget_message",
    "aget_order_status",
    "aorder_number",
    "apublish_overview",
    "apublish_progress",
    "areconcile",
    "arenew_expiring_rentals",
    "arenew_rental",
    "arented_number",
    "averify_number",
    "await_otp",
    "await_otps",
    "cancel_order",
    "get_balance",
    "get_message",
    "get_order_status",
    "order_number",
    "publish_message_events_flow",
    "publish_overview",
    "publish_progress",
    "reconcile",
    "reconcile_flow",
    "renew_expiring_rentals",
    "renew_rental",
    "renew_rentals_flow",
    "rented_number",
    "serve_callbacks",
    "verify_number",
    "wait_for_otp",
    "wait_for_otps",
]
